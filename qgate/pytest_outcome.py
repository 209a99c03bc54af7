"""What one run of pytest found: to files, to the JUnit file, to the terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from qgate.config.document import shown
from qgate.errors import QGateError
from qgate.reporting.github import annotation_lines, append_summary, is_github
from qgate.reporting.junit import run_properties
from qgate.reporting.places import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from qgate.blessed import Change
    from qgate.engine.gate import Gate
    from qgate.reporting.formats import Report
    from qgate.results import ModelResult, Result

BUG = "a bug in qgate or in a plugin; please report it with the lines above"


class Outcome:
    """The result of a run that has ended, and what became of saving it."""

    def __init__(self, config: pytest.Config, gate: Gate, result: Result) -> None:
        self.errors: list[QGateError] = []
        self._config = config
        self._gate = gate
        self._result = result
        self._changes: list[Change] | None = None

    @property
    def is_judged(self) -> bool:
        """Say whether there is a verdict at all."""
        return any(model.verdicts for model in self._result.models.values())

    def record_in_junit(self) -> None:
        """Add what holds for the whole run to the JUnit file, where there will be one."""
        for plugin in self._config.pluginmanager.get_plugins():
            if hasattr(plugin, "add_global_property"):  # pytest's LogXML, which has no public name
                for name, value in run_properties(self._result):
                    plugin.add_global_property(name, value)

    def save(self, reports: Sequence[Report]) -> None:
        """Write what was found to each of its places; an error at one keeps it from no other."""
        if self.is_judged:
            self._try(lambda: self._gate.save(self._result))
        if self.is_judged and self._config.getoption("qgate_update_blessed"):
            self._try(self._bless)
        for report in reports:
            if report.destination is not None:
                self._write(report)
        if is_github():
            self._try(lambda: append_summary(self._result))

    def show(self, terminal: pytest.TerminalReporter, reports: Sequence[Report]) -> None:
        """Write the table, what was blessed, reports without a file, and what went wrong."""
        from qgate.reporting.console import render

        writer = self._config.get_terminal_writer()
        terminal.section("qgate")
        encoding = sys.__stdout__.encoding if sys.__stdout__ else None  # pytest's writer spells all or nothing in ASCII
        terminal.write(render(self._result, width=writer.fullwidth, color=writer.hasmarkup, encoding=encoding))
        self._show_blessed(terminal)
        for report in reports:
            if report.destination is None:
                terminal.write_line("")
                self._write(report)
        if is_github():
            for line in annotation_lines(self._result, self._gate.config.qgate.on_inconclusive):
                terminal.write_line(line)
        for error in self.errors:
            terminal.write_line(f"qgate: error: {one_line(error)}", red=True)

    def _write(self, report: Report) -> None:
        self._try(lambda: report.write(self._result))

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except QGateError as error:
            self.errors.append(error)

    def _bless(self) -> None:
        """Bless the models that the gate accepts: of a model that it does not, no figure is one to be held to.

        Of those, the metrics that have a verdict: nobody asked about one whose limits were all left out.
        """
        models = {}
        for name, model in self._result.models.items():
            judged = {verdict.metric for verdict in model.verdicts}
            metrics = {metric: figures for metric, figures in model.metrics.items() if metric in judged}
            if not self._missed(model):
                models[name] = replace(model, metrics=metrics)
        self._changes = self._gate.save_blessed(replace(self._result, models=models))

    def _missed(self, model: ModelResult) -> list[str]:
        """Name the limits that the gate does not accept."""
        on_inconclusive = self._gate.config.qgate.on_inconclusive
        return [verdict.name for verdict in model.verdicts if not verdict.accepted(on_inconclusive)]

    def _show_blessed(self, terminal: pytest.TerminalReporter) -> None:
        if self._changes is None:
            return
        path = shown(self._gate.config.qgate.blessed)
        for change in self._changes:
            before = "nothing" if change.before is None else f"{change.before:.6g}"
            line = f"qgate: blessed {change.model}: {change.metric}: {before} -> {change.after:.6g}"
            terminal.write_line(line, yellow=True)
        for name, model in self._result.models.items():
            if missed := self._missed(model):
                line = f"qgate: not blessed {name}: not held: {', '.join(missed)}; meet it, or leave it out with -k"
                terminal.write_line(line, red=True)
        unchanged = "was left as it was" if path.exists() else "was not written"
        terminal.write_line(f"qgate: {path} {'was written; commit it' if self._changes else unchanged}")
