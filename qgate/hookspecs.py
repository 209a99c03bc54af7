"""The hooks that a plugin may implement; each may return several classes, each with a `name`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from qgate.protocols import Backend, Calibrator, Dataset, Executor, Exporter, Loader, Metric, Panels, Reporter
    from qgate.quantization.observers import Observer

hookspec = pluggy.HookspecMarker("qgate")


@hookspec
def qgate_register_loaders() -> Iterable[type[Loader]]:
    """Name loaders for `[models.X] loader = "..."`."""
    return ()


@hookspec
def qgate_register_datasets() -> Iterable[type[Dataset]]:
    """Name data set formats for `[models.X.data] format = "..."`."""
    return ()


@hookspec
def qgate_register_metrics() -> Iterable[type[Metric]]:
    """Name metrics for `[models.X.thresholds.NAME]`."""
    return ()


@hookspec
def qgate_register_observers() -> Iterable[type[Observer]]:
    """Name observers for `activation = { observer = "..." }` and `weight = { observer = "..." }`."""
    return ()


@hookspec
def qgate_register_calibrators() -> Iterable[type[Calibrator]]:
    """Name calibrators for `[models.X.quantization] calibrator = "..."`."""
    return ()


@hookspec
def qgate_register_backends() -> Iterable[type[Backend]]:
    """Name backends for `[models.X.quantization] backend = "..."`."""
    return ()


@hookspec
def qgate_register_exporters() -> Iterable[type[Exporter]]:
    """Name formats for `qgate export --format ...`, and for backends that run such a file."""
    return ()


@hookspec
def qgate_register_reporters() -> Iterable[type[Reporter]]:
    """Name report formats for `qgate report --format ...` and `--qgate-report ...`."""
    return ()


@hookspec
def qgate_register_panels() -> Iterable[type[Panels]]:
    """Name what reports show of a model's predictions beyond figures: curves, pictures."""
    return ()


@hookspec
def qgate_register_executors() -> Iterable[type[Executor]]:
    """Name executors for `[qgate.executor] name = "..."`."""
    return ()


@hookspec
def qgate_propose_model(weights: Path) -> Mapping[str, Any] | None:
    """Propose the keys of `[models.X]` for `qgate init --weights`: `loader` and its options; None for other files.

    The plugin registered last is asked first. Raise a `QGateError` to say why the file is not what it seems.
    """


@hookspec
def qgate_propose_data(data: Path) -> Mapping[str, Any] | None:
    """Propose for `qgate init --data`: `data`, the table of that name, and `thresholds`; None for other data.

    `data` holds `format`, `calibration` (from training data, where there is some) and `evaluation`. Where a `max_drop`
    is `qgate.statistics.provable_drop` of the number of evaluation samples, `num_evaluation_samples` says it, for a
    comment. The order and errors are those of `qgate_propose_model`. Paths are relative to the working folder, or
    absolute.
    """


@hookspec(firstresult=True)
def qgate_drop_class(prediction: Any, class_index: int) -> Any:
    """Give a prediction as if one class were never found; None for predictions of another kind.

    `qgate selftest` damages int8's predictions by it, to see whether a lost class is caught.
    """


@hookspec(firstresult=True)
def qgate_pseudo_label(prediction: Any) -> Any:
    """Turn a prediction into a target that says the same; None for predictions of another kind.

    `qgate tune` holds int8 against float32's predictions by it: no labels are needed, and it tells recipes apart that
    labels cannot.
    """
