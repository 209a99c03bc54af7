"""Classification of images for qgate: folders of images, top-1 and top-5 accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.protocols import Dataset, Metric


@hookimpl
def qgate_register_datasets() -> list[type[Dataset]]:
    """Provide `format = "image_folder"`."""
    from qgate_classification.image_folder import ImageFolder

    return [ImageFolder]


@hookimpl
def qgate_register_metrics() -> list[type[Metric]]:
    """Provide `top1` and `top5`."""
    from qgate_classification.metrics import Top1, Top5

    return [Top1, Top5]


@hookimpl
def qgate_propose_data(data: Path) -> dict[str, Any] | None:
    """Propose `format = "image_folder"` for what looks like it."""
    from qgate_classification.proposal import propose_data

    return propose_data(data)


@hookimpl
def qgate_drop_class(prediction: Any, class_index: int) -> Any:
    """Make one class the last of `ClassScores`."""
    from qgate_classification.scores import ClassScores

    return prediction.without_class(class_index) if isinstance(prediction, ClassScores) else None


@hookimpl
def qgate_pseudo_label(prediction: Any) -> Any:
    """Take the class of the highest score for what is there."""
    from qgate_classification.scores import ClassScores

    return prediction.best() if isinstance(prediction, ClassScores) else None
