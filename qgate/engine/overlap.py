"""Calibration data that is evaluation data too: the int8 model has then seen what it is judged on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.engine.evaluate import brief
from qgate.errors import DataError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qgate.config.model import DataConfig
    from qgate.protocols import Dataset

__all__ = ["check_overlap", "fingerprints"]


def fingerprints(dataset: Dataset, indices: Iterable[int]) -> list[str]:
    """Hash the content of samples. Raises `DataError`, which names the sample where the data set does not."""
    return [_fingerprint(dataset, index) for index in indices]


def _fingerprint(dataset: Dataset, index: int) -> str:
    try:
        return dataset.fingerprint(index)
    except QGateError:
        raise
    except Exception as error:
        raise DataError(f"sample {index} cannot be hashed: {brief(error)}") from error


def check_overlap(calibration: Sequence[str], evaluation: Sequence[str], config: DataConfig) -> tuple[int, str]:
    """Count the calibration samples whose fingerprint is an evaluation sample's, and say so; "" where none is.

    Raises `DataError` where their share is above `max_overlap`.
    """
    judged = set(evaluation)
    count = sum(fingerprint in judged for fingerprint in calibration)
    share = count / len(calibration)
    said = f"{count} of {len(calibration)} calibration samples ({share:.0%}) are evaluation samples too, by content"
    if share > config.max_overlap:
        place = config.calibration.place
        raise DataError(
            f"{said}; max_overlap allows {config.max_overlap:.0%}; calibrate on other samples",
            path=place.path,
            line=place.line,
        )
    return count, f"{said}: int8's accuracy is flattered" if count else ""
