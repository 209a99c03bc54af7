"""Which layers to keep float, where noise and limits are plain sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qgate.engine.fallback.search import Candidate, Found, Measures, Room, search, search_quietest

if TYPE_CHECKING:
    from collections.abc import Sequence

NOISE = {"a": 0.01, "b": 0.08, "c": 0.04, "d": 0.02}


def candidates(**costs: tuple[float, int]) -> list[Candidate]:
    return [Candidate(layer, noise, *costs.get(layer, (0.001, 100))) for layer, noise in NOISE.items()]


def noise(layers: Sequence[str]) -> float:
    return sum(value for layer, value in NOISE.items() if layer not in layers)


def found(allowed: float, max_layers: int, room: Room | None = None, **costs: tuple[float, int]) -> Found:
    """Search where limits hold as soon as the noise is at most so much."""

    def missed(layers: Sequence[str]) -> str:
        return "" if noise(layers) <= allowed + 1e-12 else "they miss it"

    return search(candidates(**costs), max_layers, room or Room(), Measures(noise, missed))


@pytest.mark.parametrize(("allowed", "layers"), [(0.07, ("b",)), (0.03, ("b", "c")), (0.01, ("b", "c", "d"))])
def test_the_noisiest_are_kept_float_and_no_more_than_needed(allowed: float, layers: tuple[str, ...]) -> None:
    result = found(allowed, 4)

    assert (result.layers, result.reason) == (layers, "")
    assert result.noise == pytest.approx((0.15, allowed))


def test_with_too_few_layers_allowed_there_are_none_and_it_says_how_far_it_came() -> None:
    result = found(0.01, 2)

    assert result.layers == ()
    assert result.reason == 'with "b", "c" float, they miss it still'


def test_a_layer_that_there_is_no_room_for_is_left_int8() -> None:
    by_time = found(0.09, 2, Room(seconds=0.005), b=(0.006, 100))
    by_size = found(0.09, 2, Room(bytes=300), b=(0.001, 301))

    assert by_time.layers == by_size.layers == ("c", "d")


def test_rooms_hold_what_they_hold_together() -> None:
    result = found(0.03, 4, Room(bytes=199))

    assert result.layers == ()
    assert result.reason == 'with "b" float, they miss it still'


@pytest.mark.parametrize("room", [Room(seconds=0.0005), Room(seconds=-1.0), Room(bytes=99), Room(bytes=-1)])
def test_without_any_room_it_says_so(room: Room) -> None:
    assert found(0.07, 4, room) == Found(
        (), "the limits on speed and size leave no room for any float layer", (0.15,) * 2
    )


def test_a_layer_that_is_faster_in_float_costs_no_time() -> None:
    assert found(0.07, 1, Room(seconds=-1.0), b=(-0.001, 100)).layers == ("b",)


def test_of_two_that_help_nearly_alike_the_cheaper_is_taken() -> None:
    costs = {"b": (0.009, 100), "c": (0.001, 100)}
    dear = {"a": 0.0, "b": 0.042, "c": 0.04, "d": 0.0}

    result = search(
        [Candidate(layer, value, *costs.get(layer, (0.0, 0))) for layer, value in dear.items()],
        1,
        Room(seconds=0.010),
        Measures(
            lambda layers: sum(value for layer, value in dear.items() if layer not in layers),
            lambda layers: "" if layers else "they miss it",
        ),
    )

    assert result.layers == ("c",)


def test_what_turns_out_not_to_be_needed_is_let_go() -> None:
    """The noisiest layer comes first, but the limit hangs on the second alone."""
    result = search(candidates(), 3, Room(), Measures(noise, lambda layers: "" if "c" in layers else "they miss it"))

    assert result.layers == ("c",)
    assert result.noise == pytest.approx((0.15, 0.11))


def test_the_effect_on_the_outputs_counts_not_the_noise_of_a_layer() -> None:
    """Layer b is noisy, but what reads it does not care."""

    def outputs(layers: Sequence[str]) -> float:
        return noise([*layers, "b"])

    result = search(candidates(), 1, Room(), Measures(outputs, lambda layers: "" if layers else "they miss it"))

    assert result.layers == ("c",)


def test_a_quiet_layer_that_the_outputs_depend_on_is_found() -> None:
    """The last layer adds little, but nothing comes after it that would drown it."""
    many = [Candidate(f"layer{index}", 1.0) for index in range(40)] + [Candidate("last", 0.001)]

    def outputs(layers: Sequence[str]) -> float:
        return 0.1 - 0.05 * ("last" in layers) - 0.001 * len(layers)

    result = search(many, 2, Room(), Measures(outputs, lambda layers: "" if layers else "they miss it"))

    assert result.layers == ("last",)


def test_where_no_layer_helps_it_says_so() -> None:
    result = search(candidates(), 2, Room(), Measures(lambda layers: 0.1, lambda layers: "they miss it"))

    assert (result.layers, result.reason) == ((), "no layer that there is room for takes noise from the outputs")


def test_no_step_is_begun_when_time_is_up() -> None:
    tried: list[tuple[str, ...]] = []

    def missed(layers: tuple[str, ...]) -> str:
        tried.append(layers)
        return "they miss it"

    result = search(candidates(), 4, Room(), Measures(noise, missed, lambda: len(tried) == 2))

    assert tried == [("b",), ("b", "c")]
    assert result.layers == ()


def test_without_a_limit_to_tell_layers_are_kept_as_long_as_each_takes_1_db() -> None:
    # 0.15, 0.07, 0.03, 0.01, 0: each is less than 0.8 of the last.
    assert search_quietest(candidates(), 3, Room(), noise).layers == ("b", "c", "d")
    # 0.15 + 1 and less: the first takes 7%.
    assert search_quietest(candidates(), 3, Room(), lambda layers: 1 + noise(layers)).layers == ()
