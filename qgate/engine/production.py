"""What a run judges: a model is quantized or trained and written, with those layers float that limits demand."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from qgate import __version__
from qgate.engine.artifact import encoded_bytes, write_artifact
from qgate.engine.evaluate import brief
from qgate.engine.fallback.find import Fallback, decided_by, find_fallback
from qgate.engine.fallback.search import Candidate
from qgate.engine.quantize import describe, with_ignored, without_training
from qgate.engine.shipping import ship
from qgate.engine.training.processes import ALONE
from qgate.errors import QGateError

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.config.model import ModelConfig
    from qgate.engine.artifact import Encoded
    from qgate.engine.fallback.find import Case
    from qgate.engine.progress import StepClock
    from qgate.engine.reuse import Reuse
    from qgate.engine.training.processes import Processes
    from qgate.results import Artifact

__all__ = ["Production"]


class Production:
    """Writes the artifacts of one model's run.

    Afterwards `quantization` and `training` are what results say of them. `processes` train together. After
    `fallback_seconds` no more layers are looked for, and `cut_short` says whether that ended the search.
    """

    def __init__(self, folder: Path, environment: dict[str, Any], reuse: Reuse, clock: StepClock) -> None:
        self.processes: Processes = ALONE
        self.fallback_seconds = math.inf
        self.cut_short = False
        self.quantization: dict[str, Any] = {}
        self.training: dict[str, Any] = {}
        self.notes: list[str] = []
        self._folder = folder
        self._environment = environment
        self._reuse = reuse
        self._clock = clock

    def produce(self, case: Case) -> Artifact:
        """Write the artifact; where limits on accuracy demand it, and the recipe allows, with some layers float."""
        artifact = self._write_artifact(case, case.model)
        max_layers = case.model.quantization.fallback.max_layers
        found = self._find_fallback(case, max_layers) if max_layers else None
        if not found:
            return artifact
        self.cut_short = found.cut_short
        self.notes += [str(found)] if str(found) else []
        described = {**self.quantization["fallback"], **found.described()}
        if found.layers:
            model = with_ignored(case.model, found.ignored_scope)
            artifact = self._write_artifact(case, model, described)
        self.quantization["fallback"] = described
        return artifact

    def produce_untrained(self, case: Case, path: Path) -> Case | None:
        """Write to `path` what the recipe gives without training; None where nothing is trained."""
        if case.model.quantization.approach == "ptq":
            return None
        untrained = replace(case, model=without_training(case.model), artifact=path)
        encoded, recipe = self._reuse.quantized(untrained.model, case.inputs, case.chosen, self._clock)
        self._write(untrained, encoded, describe(untrained.model, recipe, len(case.chosen), case.settings.seed))
        with self._clock.step("artifact"):
            ship(untrained.artifact, case.registry)
        return untrained

    def relative(self, written: Artifact) -> Artifact:
        """Give an artifact with its path as seen from the folder of `qgate.toml`."""
        return replace(written, path=os.path.relpath(written.path, self._folder))

    def _find_fallback(self, case: Case, max_layers: int) -> Fallback | None:
        try:
            with self._clock.step("fallback") as progress:
                return self._reuse.found(
                    "fallback",
                    case,
                    lambda: find_fallback(case, max_layers, progress, self.fallback_seconds),
                    decided_by(case),
                    (Fallback, Candidate),
                    is_final=lambda found: not found.cut_short,
                )
        except Exception as error:  # noqa: BLE001  # the recipe as it is can be judged, whatever the search runs into
            said = str(error) if isinstance(error, QGateError) else brief(error)
            self.notes.append(f"fallback: no layer is kept float: {said}")
            return None

    def _write_artifact(self, case: Case, model: ModelConfig, fallback: dict[str, Any] | None = None) -> Artifact:
        """Quantize and write; `fallback` is what to say of layers that `model` ignores and the recipe does not."""
        if model.quantization.approach == "qat":
            encoded, recipe, self.training = self._reuse.trained(case, self._clock, self.processes)
        else:
            encoded, recipe = self._reuse.quantized(model, case.inputs, case.chosen, self._clock)
        self.quantization = describe(model, recipe, len(case.chosen), case.settings.seed)
        if fallback:
            self.quantization["fallback"] = fallback
        return self._write(case, encoded, self.quantization)

    def _write(self, case: Case, encoded: Encoded, quantization: dict[str, Any]) -> Artifact:
        loaded = case.inputs.loaded
        header = {
            "model": case.model.name,
            "qgate_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "source_sha256": loaded.source_sha256,
            "quantization": quantization,
            "byte_scale": loaded.byte_scale,
            "input_description": dict(loaded.input_description),
            "class_names": list(loaded.class_names),
            "environment": self._environment,
        }
        with self._clock.step("artifact"):
            written = write_artifact(case.artifact, encoded_bytes(encoded, loaded.example_inputs, header))
        return self.relative(written)
