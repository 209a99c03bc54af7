"""What training makes small: the distance to float32, or the loader's own loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.evaluate import brief
from qgate.engine.tensors import tensors_of
from qgate.errors import ModelError, QGateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.config.model import TrainingConfig
    from qgate.engine.training.data import Batch
    from qgate.protocols import LoadedModel
    from qgate.quantization.teacher import Teacher

__all__ = ["Objective", "relative_error"]


class Objective:
    """The loss of a student on a batch: a scalar. Raises `ModelError` where a loader's loss gives anything else."""

    def __init__(self, loaded: LoadedModel, config: TrainingConfig, teacher: Teacher) -> None:
        self.is_supervised = config.loss == "supervised"
        self.maps = teacher.watched
        self._teacher = teacher
        self._distance = loaded.distillation_loss or relative_error
        self._supervised = loaded.supervised_loss

    def __call__(self, student: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Run the student, and the teacher where it is asked."""
        outputs, maps = student(*batch.inputs)
        total = outputs_loss = None
        if self._supervised is not None and self.is_supervised:
            outputs_loss = _scalar("supervised_loss", self._supervised, outputs, batch.targets)
        if outputs_loss is None or maps:
            taught, taught_maps = self._teacher(*batch.inputs)
            if outputs_loss is None:
                outputs_loss = _scalar("distillation_loss", self._distance, outputs, taught)
            total = outputs_loss + (relative_error(maps, taught_maps) if maps else 0.0)
        return outputs_loss if total is None else total


def relative_error(student: Any, teacher: Any) -> torch.Tensor:
    """Give the mean squared difference of two outputs as a share of the teacher's variance, the mean over tensors."""
    errors = [
        (found - wanted).square().mean() / wanted.var(correction=0).clamp_min(torch.finfo(wanted.dtype).eps)
        for found, wanted in zip(tensors_of(student), tensors_of(teacher), strict=True)
        if wanted.is_floating_point()
    ]
    return torch.stack(errors).mean()


def _scalar(name: str, loss: Callable[[Any, Any], Any], outputs: Any, compared: Any) -> torch.Tensor:
    try:
        value = loss(outputs, compared)
    except QGateError:
        raise
    except Exception as error:
        raise ModelError(f"{name} failed: {brief(error)}") from error
    if not isinstance(value, torch.Tensor) or value.ndim:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)[:80]
        raise ModelError(f"{name} gave {got}; expected a scalar, a tensor without dimensions")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise ModelError(f"{name} does not depend on the model's outputs: nothing can be learned from it")
    return value
