"""What a user may do about a limit on accuracy that is missed: the layers to look at, and those to keep float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.engine.fallback.find import find_fallback
from qgate.engine.judge import judge
from qgate.engine.noise import noisiest
from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qgate.engine.fallback.find import Case
    from qgate.engine.progress import Progress

__all__ = ["advice", "missed_metrics"]

_NAMED = 3
_MAX_LAYERS = 3  # float ones that are proposed: with more, another recipe is the better advice
_MAX_SECONDS = 60.0  # nobody asked for the search


def missed_metrics(case: Case, metrics: Mapping[str, dict[str, Any]]) -> list[str]:
    """Name the metrics of accuracy that miss a limit."""
    tables = [table for table in case.model.limit_tables if table.metric in case.registry.metrics]
    verdicts = judge(tables, metrics, "", len(case.judged))
    return list(dict.fromkeys(verdict.metric for verdict in verdicts if verdict.status == "failed"))


def advice(case: Case, progress: Progress) -> tuple[dict[str, Any], bool]:
    """Give the `noisiest` layers with their own ratios in dB, and the `ignored_scope` with which limits would hold.

    The latter is missing where none was found, where no limit could be tried, where the recipe has a fallback, which
    then has found none, and where the model was trained: it would be trained anew, and may have learned from the
    samples that are held out. Also says whether the search came to its end.
    """
    layers = noisiest(case.inputs, case.chosen, case.artifact, case.registry)[:_NAMED]
    given: dict[str, Any] = {"noisiest": [{"layer": layer.layer, "snr": layer.alone.snr} for layer in layers]}
    recipe = case.model.quantization
    if recipe.fallback.max_layers or recipe.approach == "qat":
        return given, True
    try:
        found = find_fallback(case, _MAX_LAYERS, progress, _MAX_SECONDS)
    except DataError:  # no samples to try layers on: those to look at are known
        return given, True
    if found.layers and found.judged:
        given["ignored_scope"] = [*recipe.ignored_scope, *found.ignored_scope]
        given["ignored_scope_by"] = found.measured_on
    return given, not found.cut_short
