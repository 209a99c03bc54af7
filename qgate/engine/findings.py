"""What one run keeps for reports beyond its figures: panels of plugins, noise of layers, times of passes."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgate.details import Activation, Details, LayerRatio, Layers, Times, details_file, packed
from qgate.engine.calibrate import preprocessed
from qgate.engine.evaluate import brief, read_sample
from qgate.engine.noise import by_own_noise
from qgate.engine.probe import spread
from qgate.engine.variants import Variants
from qgate.files import write_atomically
from qgate.panels import Gallery
from qgate.quantization.activations import output_values
from qgate.quantization.sensitivity import layer_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qgate.engine.evaluate import PairWatcher
    from qgate.engine.fallback.find import Case
    from qgate.engine.timing import Timing
    from qgate.panels import Panel
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, Panels
    from qgate.quantization.activations import OutputValues
    from qgate.quantization.sensitivity import LayerNoise
    from qgate.results import DetailsFile

__all__ = ["LAYER_CLASSES", "Findings", "look_at_layers"]

LAYER_CLASSES = (Layers, LayerRatio, Activation)

_NUM_SAMPLES = 2  # of calibration: each runs three times, node by node
_NUM_WORST = 6
_MAX_PICTURE_BYTES = 3_000_000  # of one model: in base64 they are a third more


class Findings:
    """What is kept of one run, in a file at `path`; with None nothing is.

    A report shows it and no limit depends on it: what fails here is said in the report, and fails nothing.
    """

    def __init__(self, registry: Registry, path: Path | None) -> None:
        self.path = path
        self.details = Details()
        self.notes: list[str] = []
        self._registry = registry
        self._watchers: list[_Watcher] = []

    def watchers(self, class_names: tuple[str, ...]) -> list[PairWatcher]:
        """Give what takes the predictions in, as plugins have it."""
        if self.path:
            kinds = (self._registry.panels.get(name) for name in self._registry.panels)
            self._watchers = [_Watcher(kind, class_names) for kind in kinds]
        return list(self._watchers)

    def take_panels(self, dataset: Dataset) -> None:
        """Take what plugins show of the predictions of these samples."""
        panels = [panel for watcher in self._watchers for panel in watcher.panels(dataset)]
        reasons = [watcher.reason for watcher in self._watchers if watcher.reason]
        if self.path and not panels:
            reasons = reasons or ["no plugin shows predictions of this kind"]
        self._keep(panels=tuple(_bounded(panels)))
        self._miss("panels", "; ".join(reasons))

    def leave_out_panels(self, reason: str) -> None:
        """Say why nobody could watch the predictions."""
        self._miss("panels", reason)

    def take_layers(self, look: Callable[[], Layers]) -> None:
        """Look at the layers."""
        try:
            self._keep(layers=look())
        except Exception as error:  # noqa: BLE001  # no limit depends on it
            self._miss("layers", brief(error))

    def take_times(self, timing: Timing) -> None:
        """Take the seconds of each pass."""
        if len(timing.baseline):
            self._keep(times=Times(timing.baseline, timing.candidate))
        else:
            self._miss("times", "no round was undisturbed")

    def write(self, reason: str, folder: Path) -> DetailsFile | None:
        """Write the file, whole or not at all, and describe it; `folder` is what its path is relative to.

        `reason` says why the run ended before its end, "" where it did not. None where nothing is kept.
        """
        if self.path is None:
            return None
        details = self.details
        present = {"panels": details.panels, "layers": details.layers, "times": details.times}
        absent = {name: reason or "it was not measured" for name, value in present.items() if not value}
        content = packed(replace(details, missing={**absent, **details.missing}))
        try:
            write_atomically(self.path, content)
        except OSError as error:
            self.notes.append(f"the details for reports cannot be written: {error.strerror or error}")
            return None
        return details_file(content, os.path.relpath(self.path, folder))

    def _keep(self, **found: Any) -> None:
        self.details = replace(self.details, **found)

    def _miss(self, section: str, reason: str) -> None:
        if reason:
            self._keep(missing={**self.details.missing, section: " ".join(reason.split())})


class _Watcher:
    """A plugin's panels; whatever it raises ends them, and nothing else."""

    def __init__(self, kind: type[Panels], class_names: tuple[str, ...]) -> None:
        self.reason = ""
        self._name = kind.name
        self._made: Panels | None = None
        try:
            self._made = kind(class_names)
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything
            self._end(error)

    def update(self, sample_id: str, float32: Any, int8: Any, target: Any) -> None:
        """Hand one sample on."""
        if self._made is not None:
            try:
                self._made.update(sample_id, float32, int8, target)
            except Exception as error:  # noqa: BLE001  # a plugin may raise anything
                self._end(error)

    def panels(self, dataset: Dataset) -> list[Panel]:
        """Give what the plugin shows."""
        if self._made is None:
            return []
        try:
            return list(self._made.panels(lambda index: read_sample(dataset, index)))
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything
            self._end(error)
            return []

    def _end(self, error: Exception) -> None:
        self._made = None
        self.reason = f'panels "{self._name}" failed: {brief(error)}'


def look_at_layers(case: Case) -> Layers:
    """Measure the noise of each layer, and count the outputs of the noisiest, on very few calibration samples."""
    variants = Variants.of(case.inputs.loaded, case.artifact, case.registry)
    inputs = case.inputs
    batches = list(preprocessed(inputs.loaded, inputs.calibration, spread(case.chosen, _NUM_SAMPLES)))
    noise = layer_noise(variants.floats, variants.reference, batches)
    worst = [layer.layer for layer in by_own_noise(noise)]
    outputs = output_values(variants.floats, variants.reference, batches, worst, _NUM_WORST)
    return Layers(len(batches), tuple(map(_ratio, noise)), tuple(map(_activation, outputs)))


def _ratio(noise: LayerNoise) -> LayerRatio:
    return LayerRatio(noise.layer, noise.alone.snr, noise.accumulated.snr)


def _activation(values: OutputValues) -> Activation:
    histogram = values.histogram
    counts = histogram.counts.numpy()
    return Activation(values.layer, histogram.low, histogram.width, counts, values.covered, values.clipped)


def _bounded(panels: list[Panel]) -> Iterator[Panel]:
    """Leave the last pictures out where all would be too many bytes."""
    room = _MAX_PICTURE_BYTES
    for panel in panels:
        if not isinstance(panel, Gallery):
            yield panel
            continue
        kept = []
        for picture in panel.pictures:
            room -= len(picture.content)
            if room >= 0:
                kept.append(picture)
        yield replace(panel, pictures=tuple(kept))
