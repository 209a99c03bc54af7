"""The loop: epochs of steps, weights that are averaged, and the best epoch of them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qgate.engine.training.checkpoint import Epoch, State
from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qgate.config.model import TrainingConfig
    from qgate.engine.progress import Progress
    from qgate.engine.training.data import Batch, Batches, Division
    from qgate.engine.training.objective import Objective
    from qgate.engine.training.processes import Processes
    from qgate.quantization.fake_quantize import Student

__all__ = ["Training"]

_VALIDATION = 2**31  # in the place of an epoch's number, it seeds the validation's batches: the same in each epoch
_SCALES_RATE = 10  # times that of weights: all values of a tensor agree on a scale, and it may have far to go


@dataclass(frozen=True)
class Training:
    """A training of `student`, whose weights it moves.

    What an epoch does depends on the seed, its number and the state before it: so a training that goes on from a stored
    state comes to the same weights.
    """

    student: Student
    objective: Objective
    batches: Batches
    division: Division
    config: TrainingConfig
    seed: int
    device: torch.device
    processes: Processes

    @property
    def steps(self) -> int:
        """Count the steps of an epoch."""
        return len(self._groups(0))

    def run(self, state: State | None, progress: Progress, save: Callable[[State], None]) -> State:
        """Train from a state, or from the start, to the last epoch; `save` is given the state after each.

        Raises `QuantizationError` where a loss is not finite, and what the loader's functions raise. Several processes
        run it inside `Processes.together`.
        """
        optimizer = self._optimizer()
        joined = self.processes.joined(self.student)
        if state is None:
            state = self._first_state()
        self.student.take(state.weights)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
        progress.advance((len(state.curve) - 1) * self.steps)
        for epoch in range(len(state.curve), self.config.epochs + 1):
            self._run_epoch(epoch, state, joined, optimizer, progress)
            save(state)
        return state

    def _first_state(self) -> State:
        weights = self._weights()
        state = State(weights, weights, weights)
        state.curve.append(Epoch(0, None, self._validate(), 0.0))
        return state

    def _run_epoch(
        self, epoch: int, state: State, joined: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        begin = time.perf_counter()
        self.student.take(state.weights)
        averaged = [value.to(self.device).clone() for value in state.averaged]
        loss = self._learn(epoch, averaged, joined, optimizer, progress)
        state.weights, state.averaged, state.optimizer = self._weights(), averaged, optimizer.state_dict()
        self.student.take(averaged)
        validation_loss = self._validate()
        if validation_loss < min(item.validation_loss for item in state.curve):
            state.best, state.best_epoch = averaged, epoch
        state.curve.append(Epoch(epoch, loss, validation_loss, time.perf_counter() - begin))
        progress.report(self._said(state))

    def _learn(
        self,
        epoch: int,
        averaged: list[torch.Tensor],
        joined: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> float:
        """Take the steps of an epoch; `averaged` follows the weights. Gives the mean loss."""
        torch.manual_seed(self.seed + epoch)
        if epoch > self.config.observer_epochs:
            self.student.freeze_scales()
        total, parameters = 0.0, list(self.student.relative)
        groups = self._groups(epoch)
        for number, batch in enumerate(self._made(groups, epoch)):
            step = (epoch - 1) * len(groups) + number
            self._set_rates(optimizer, step, epoch)
            optimizer.zero_grad()
            share = batch.size * self.processes.size / len(groups[number])  # gradients are averaged over processes
            loss = self.objective(joined, batch) * share
            mean = self.processes.added(float(loss.detach())) / self.processes.size
            total += self._finite(mean, f"epoch {epoch}, step {number + 1}")
            self.processes.backward(loss, parameters)
            torch.nn.utils.clip_grad_norm_(parameters, self.config.gradient_clipping)
            optimizer.step()
            decay = min(self.config.ema_decay, (1 + step) / (10 + step))  # early weights are soon forgotten
            with torch.no_grad():
                torch._foreach_lerp_(averaged, [value.detach() for value in parameters], 1 - decay)
            progress.advance()
        return total / len(groups)

    def _validate(self) -> float:
        """Give the mean loss over the validation part."""
        indices, size = self.division.validation, self.config.batch_size
        groups = [indices[begin : begin + size] for begin in range(0, len(indices), size)]
        total = 0.0
        with torch.no_grad():
            for batch in self._made(groups, _VALIDATION, augmented=self.objective.is_supervised):
                total += float(self.objective(self.student, batch)) * batch.size
        return self._finite(self.processes.added(total) / len(indices), "validation")

    def _made(self, groups: list[list[int]], epoch: int, *, augmented: bool = True) -> Iterator[Batch]:
        shares = [share for group in groups if (share := self.processes.share(group))]
        seeds = (self.seed, epoch, self.processes.rank)
        for batch in self.batches(shares, seeds, augmented=augmented):
            yield batch._replace(inputs=_on(batch.inputs, self.device), targets=_on(batch.targets, self.device))

    def _groups(self, epoch: int) -> list[list[int]]:
        """Deal the samples of an epoch into batches; a last one that is too small for all processes is left out."""
        indices = np.random.default_rng([self.seed, epoch]).permutation(self.division.learning).tolist()
        size = max(self.config.batch_size, self.processes.size)
        groups = [indices[begin : begin + size] for begin in range(0, len(indices), size)]
        return [group for group in groups if len(group) >= self.processes.size]

    def _optimizer(self) -> torch.optim.Optimizer:
        named = list(zip(self.student.names, self.student.relative, strict=True))
        groups: list[dict[str, Any]] = [
            {"params": [value for name, value in named if not self.student.is_scale(name)]},
            {"params": [value for name, value in named if self.student.is_scale(name)], "weight_decay": 0.0},
        ]
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(groups, self.config.learning_rate, 0.9, weight_decay=self.config.weight_decay)
        return torch.optim.AdamW(groups, self.config.learning_rate, weight_decay=self.config.weight_decay)

    def _set_rates(self, optimizer: torch.optim.Optimizer, step: int, epoch: int) -> None:
        """Warm up linearly, then fall to zero by a cosine (Loshchilov and Hutter, "SGDR", 2017)."""
        warmup, steps = self.config.warmup_epochs * self.steps, self.config.epochs * self.steps
        rate = self.config.learning_rate * min(1.0, (step + 1) / max(warmup, 1.0))
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
        weights, scales = optimizer.param_groups
        weights["lr"] = rate
        scales["lr"] = _SCALES_RATE * rate if epoch <= self.config.observer_epochs else 0.0

    def _finite(self, value: float, where: str) -> float:
        if math.isfinite(value):
            return value
        raise QuantizationError(
            f"the training's loss is {value} ({where}); lower learning_rate, and see that float32's outputs are finite"
        )

    def _weights(self) -> list[torch.Tensor]:
        return [value.detach().clone() for value in self.student.relative]

    def _said(self, state: State) -> str:
        last, done = state.curve[-1], len(state.curve) - 1
        spent = sum(epoch.seconds for epoch in state.curve)
        left = spent / done * (self.config.epochs - done) / 60
        return (
            f"epoch {done} of {self.config.epochs}: loss {last.loss:.4g}, validation {last.validation_loss:.4g} "
            f"({state.curve[0].validation_loss:.4g} before), {left:.1f} min left"
        )


def _on(value: Any, device: torch.device) -> Any:
    """Move all tensors of a value to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_on(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_on(item, device) for item in value)
    return {key: _on(item, device) for key, item in value.items()} if isinstance(value, dict) else value
