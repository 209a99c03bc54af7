"""Distances on views of samples: which views there are, and what is reckoned of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qgate.engine.tuning.views import mean_distances
from qgate.errors import ModelError
from qgate.protocols import LoadedModel, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

EXAMPLE = (torch.zeros(1, 1),)
FLOAT32 = LoadedModel(torch.nn.Identity(), EXAMPLE)


class Doubled(torch.nn.Module):
    """Off by what goes in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double."""
        return 2 * x


class Numbers:
    """Three samples: 1, 2 and 3."""

    def __len__(self) -> int:
        return 3

    def sample(self, index: int) -> Sample:
        """Give a number."""
        return Sample(str(index), torch.tensor([index + 1.0]))


def error(found: Any, real: Any) -> torch.Tensor:
    return (found - real).abs().mean()  # type: ignore[no-any-return]


def tens(samples: Sequence[Sample], _rng: np.random.Generator, options: float) -> tuple[tuple[torch.Tensor, ...], None]:
    """Make ten times the samples, or as the options say."""
    return (torch.stack([sample.input for sample in samples]) * options,), None


def drawn(samples: Sequence[Sample], rng: np.random.Generator, _: Any) -> tuple[tuple[torch.Tensor, ...], None]:
    """Make numbers that have nothing to do with the samples."""
    return (torch.tensor([[rng.uniform()] for _ in samples]),), None


def distances(loaded: LoadedModel, options: Any = None) -> list[float]:
    found: list[float] = mean_distances(loaded, Doubled(), Numbers(), error, options).tolist()  # type: ignore[arg-type]
    return found


def test_without_an_augment_each_sample_is_seen_as_it_is() -> None:
    assert distances(FLOAT32) == [1, 2, 3]


def test_each_sample_counts_with_all_of_its_views_and_the_loaders_options_are_handed_on() -> None:
    assert distances(replace(FLOAT32, augment=tens), 10.0) == pytest.approx([(1 + 4 * 10) * n / 5 for n in (1, 2, 3)])


def test_every_recipe_is_given_the_same_views_and_no_two_are_alike() -> None:
    seen: list[float] = []

    class Watched(Doubled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(float(x))
            return super().forward(x)

    loaded = replace(FLOAT32, augment=drawn)
    first, second = (mean_distances(loaded, Watched(), Numbers(), error, None).tolist() for _ in range(2))  # type: ignore[arg-type]

    assert first == second
    assert sorted(seen[:15]) == sorted(seen[15:])
    assert len(set(seen)) == 15


def test_what_an_augment_fails_with_names_the_sample() -> None:
    def fails(*_: Any) -> Any:
        raise ValueError("no boxes")

    with pytest.raises(ModelError, match=r"augment failed at the samples 0: ValueError: no boxes"):
        distances(replace(FLOAT32, augment=fails))
