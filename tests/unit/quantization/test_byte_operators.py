from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from qgate.quantization import byte_operators, byte_table
from qgate.quantization.byte_operators import as_bytes, as_quantized
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable

native = pytest.mark.skipif(not byte_table._KERNELS, reason="the native module was not built")
TABLE = torch.randperm(256, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(params=["operator", "python"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call an operator as TorchScript does, or the function that stands in for it without the native module."""
    if request.param == "operator":
        return lambda name, *arguments: getattr(torch.ops.qgate, name)(*arguments)
    return lambda name, *arguments: getattr(byte_operators, f"_{name.removesuffix('_')}")(*arguments)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def carried(values: torch.Tensor) -> torch.Tensor:
    with quiet_torch_ao():
        return as_quantized(values.clone(), 1.0, 0)


@pytest.mark.parametrize("wrap", [torch.clone, carried], ids=["uint8", "quint8"])
def test_a_table_is_looked_up_in_place_or_elsewhere(call: Callable[..., Any], wrap: Callable[..., Any]) -> None:
    values = images(2, 5, 3, 7)
    source, target = wrap(values), wrap(torch.zeros_like(values))

    assert call("map_", target, source, TABLE) is not None
    assert as_bytes(target).equal(TABLE[values.long()])
    assert as_bytes(source).equal(values)

    call("map_", source, source, TABLE)
    assert as_bytes(source).equal(TABLE[values.long()])


@pytest.mark.parametrize("channels", [1, 3, 16, 33, 80])
def test_a_frame_is_what_padding_gives(call: Callable[..., Any], channels: int) -> None:
    values = images(2, channels, 4, 6)
    target = carried(images(2, channels, 4 + 3, 6 + 7, seed=1))

    call("place_", target, carried(values), TABLE, 1, 3, 0, 9)

    assert as_bytes(target).equal(torch.nn.functional.pad(TABLE[values.long()], (3, 4, 1, 2), value=9))


@pytest.mark.parametrize(("top", "left", "size"), [(0, 0, (4, 6)), (1, 0, (5, 6)), (1, 2, (6, 9))])
def test_a_part_is_written_and_nothing_around_it(
    call: Callable[..., Any], top: int, left: int, size: tuple[int, int]
) -> None:
    values, before = images(2, 5, 4, 6), images(2, 12, *size, seed=1)
    target, expected = carried(before), before.clone()
    expected[:, 3:8, top : top + 4, left : left + 6] = TABLE[values.long()]

    call("place_", target, carried(values), TABLE, top, left, 3, -1)

    assert as_bytes(target).equal(expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_squares_are_an_unshuffled_image_with_places_before_channels(call: Callable[..., Any], channels: int) -> None:
    values = images(2, channels, 6, 10)
    target = carried(images(2, 4 * channels, 3, 5, seed=1))
    unshuffled = torch.nn.functional.pixel_unshuffle(values, 2).reshape(2, channels, 4, 3, 5)

    call("squares_", target, carried(values))

    assert as_bytes(target).equal(unshuffled.transpose(1, 2).reshape(2, 4 * channels, 3, 5))


@pytest.mark.parametrize("fill", [-1, 7])
def test_nothing_is_placed_of_a_tensor_without_elements(call: Callable[..., Any], fill: int) -> None:
    target = images(1, 4, 2, 3)
    source = images(1, 4 if fill >= 0 else 2, 0, 2)

    call("place_", target, source, TABLE, 0, 0, 0, fill)

    assert target.equal(torch.full_like(target, fill) if fill >= 0 else images(1, 4, 2, 3))


@pytest.mark.parametrize("name", ["map_", "add_", "place_", "squares_", "bytes"])
def test_tensors_without_memory_are_an_error(name: str) -> None:
    nothing = torch.empty(1, 4, 4, 4, dtype=torch.uint8, device="meta")
    numbers = {"map_": (), "add_": (1.0, 0.0) * 3, "place_": (0, 0, 0, -1)}
    tensors = {"bytes": 1, "squares_": 2}.get(name, 3)

    with pytest.raises(NotImplementedError, match=name):
        getattr(torch.ops.qgate, name)(*[nothing] * tensors, *numbers.get(name, ()))


def test_a_sum_is_that_of_the_byte_table(call: Callable[..., Any]) -> None:
    by = byte_table.SumQuantization(0.0371, 7, 0.0522, 12, 0.0634, 9)
    values, other = images(1, 7, 5, 5), images(1, 7, 5, 5, seed=1)
    expected = byte_table.add_table(values.clone(memory_format=torch.channels_last), other, TABLE, by)
    total = carried(values)

    call("add_", total, carried(other), TABLE, *map(float, by))

    assert as_bytes(total).equal(expected)


def test_bytes_outlive_the_tensor_whose_memory_they_are() -> None:
    values = images(1, 64, 64, 64)
    quantized = carried(values)

    seen = torch.ops.qgate.bytes(quantized)
    address = quantized.data_ptr()
    del quantized
    others = [torch.ones(64 * 64 * 64, dtype=torch.uint8) for _ in range(8)]

    assert seen.data_ptr() == address
    assert seen.dtype is torch.uint8
    assert seen.equal(values)
    assert all(bool(other.all()) for other in others)


@native
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("map_", (images(1, 3, 4, 4), images(1, 3, 4, 5), TABLE), id="other_shape"),
        pytest.param("map_", (images(1, 3, 4, 4), images(1, 3, 4, 4).contiguous(), TABLE), id="other_layout"),
        pytest.param("map_", (torch.zeros(4, 4), torch.zeros(4, 4), TABLE), id="not_bytes"),
        pytest.param("map_", (images(1, 3, 4, 4), images(1, 3, 4, 4), TABLE[:255]), id="short_table"),
        pytest.param("map_", (images(1, 4, 4, 4)[:, :2], images(1, 4, 4, 4)[:, :2], TABLE), id="gaps"),
        pytest.param("place_", (images(1, 3, 4, 4), images(1, 3, 4, 4), TABLE, 1, 0, 0, -1), id="beyond_the_last_row"),
        pytest.param("place_", (images(1, 3, 4, 4), images(1, 3, 4, 4), TABLE, 0, -1, 0, -1), id="before_the_first"),
        pytest.param("place_", (images(1, 3, 4, 4), images(1, 3, 4, 4), TABLE, 0, 0, 1, -1), id="beyond_the_channels"),
        pytest.param("place_", (images(2, 3, 4, 4), images(1, 3, 4, 4), TABLE, 0, 0, 0, -1), id="another_batch"),
        pytest.param("place_", (images(1, 6, 4, 4), images(1, 3, 4, 4), TABLE, 0, 0, 0, 7), id="frame_of_a_part"),
        pytest.param(
            "place_", (images(1, 3, 4, 4).contiguous(), images(1, 3, 4, 4), TABLE, 0, 0, 0, -1), id="channels_first"
        ),
        pytest.param("squares_", (images(1, 12, 2, 2), images(1, 3, 5, 4)), id="odd_height"),
        pytest.param("squares_", (images(1, 12, 2, 2), images(1, 3, 4, 5)), id="odd_width"),
        pytest.param("squares_", (images(1, 3, 2, 2), images(1, 3, 4, 4)), id="too_few_channels"),
        pytest.param("squares_", (images(1, 20, 2, 2), images(1, 5, 4, 4)), id="too_many_channels"),
        pytest.param("squares_", (images(1, 12, 2, 2), images(1, 3, 4, 4).contiguous()), id="squares_of_planes"),
    ],
)
def test_what_does_not_fit_is_an_error_and_not_a_stray_write(name: str, arguments: tuple[Any, ...]) -> None:
    before = arguments[0].clone()

    with pytest.raises(RuntimeError, match="expected "):
        getattr(torch.ops.qgate, name)(*arguments)

    assert arguments[0].equal(before)
