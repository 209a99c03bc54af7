"""One `pytest --qgate` run: what is collected, when the gate runs, where its results go."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qgate.config.document import shown
from qgate.engine.gate import Gate
from qgate.engine.progress import Silent
from qgate.errors import QGateError
from qgate.local_plugin import FILE_NAME, load_local_plugin
from qgate.pytest_items import GateFile, LimitItem
from qgate.reporting.formats import Report
from qgate.reporting.junit import properties
from qgate.reporting.places import one_line
from qgate.reporting.progress import PlainProgress
from qgate.results import Verdict, result_from_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.engine.progress import Progress
    from qgate.pytest_items import Limit
    from qgate.results import ModelResult, Result

_WORKER_OUTPUT = "qgate_result"
_COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def open_session(config: pytest.Config) -> GateSession:
    """Open the gate that the options ask for. Raises `pytest.UsageError` where that cannot be."""
    path = _config_path(config)
    try:
        gate = Gate.open(
            path,
            models=config.getoption("qgate_model") or (),
            plugins=_local_plugins(config, path.parent),
            timing=not (config.getoption("qgate_no_timing") or _is_worker(config)),
        )
        reports = [Report.parse(text, gate.registry) for text in config.getoption("qgate_report") or ()]
    except QGateError as error:
        raise pytest.UsageError(one_line(error)) from error
    return GateSession(config, gate, path, reports)


class GateSession:
    """The plugin that is registered while a gate is open."""

    def __init__(self, config: pytest.Config, gate: Gate, path: Path, reports: Sequence[Report]) -> None:
        self.gate = gate
        self.path = path
        self._config = config
        self._reports = reports
        self._finished: dict[str, ModelResult] = {}
        self._deselected = 0
        self._error: QGateError | None = None

    def verdict(self, limit: Limit) -> Verdict:
        """Give the verdict of one limit, running the model's gate where it has not run yet."""
        if limit.model not in self._finished:
            result = self.gate.run(limit.model, self._progress(limit.model))
            self._finished[limit.model] = _explain_timing(result) if _is_worker(self._config) else result
        table = limit.table
        for verdict in self._finished[limit.model].verdicts:
            if (verdict.metric, verdict.limit, verdict.slice) == (table.metric, limit.name, table.where):
                return verdict
        message = "the gate gave no verdict on this limit"
        return Verdict(table.metric, limit.name, table.limits[limit.name], None, "error", message, table.where)

    def properties(self, limit: Limit, verdict: Verdict) -> list[tuple[str, object]]:
        """Give what goes into the JUnit file."""
        return properties(verdict, self._finished[limit.model])

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> GateFile | None:
        """Collect the gate's own configuration file, where pytest comes across it."""
        is_ours = file_path.name == self.path.name and file_path.samefile(self.path)
        return GateFile.from_parent(parent, path=file_path, gate_session=self) if is_ours else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the gate's items where pytest did not come across the file: `testpaths` or arguments led elsewhere."""
        if not _limits(items):
            items.extend(session.genitems(GateFile.from_parent(session, path=self.path, gate_session=self)))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count the limits that `-k`, `--lf` and the like left out."""
        self._deselected += len(_limits(items))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Find what is wrong with models and data before any test runs."""
        selected = self._controls_workers() or _limits(session.items)
        if not selected or self._config.option.collectonly or _is_worker(self._config):
            return
        try:
            self.gate.preflight()
        except QGateError as error:
            raise pytest.UsageError(one_line(error)) from error

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what an xdist worker found."""
        published = getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT)
        if published:
            result = result_from_document(json.loads(published["result"]), "an xdist worker's result")
            self._finished.update(result.models)
            self._deselected = published["deselected"]  # each worker collects, and deselects, everything

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Save what was found, also where limits were deselected; an interrupted run leaves the last results alone."""
        if _is_worker(self._config):
            output = {"result": self._result().to_json(), "deselected": self._deselected}
            self._config.workeroutput[_WORKER_OUTPUT] = output  # type: ignore[attr-defined]  # xdist's
        elif self._finished and exitstatus in _COMPLETE:
            try:
                self._save()
            except QGateError as error:
                self._error = error
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Close the run with the table of limits, and say what was left out of it."""
        if self._config.option.collectonly or not (self._finished or self._deselected):
            return
        terminalreporter.section("qgate")
        if self._finished:
            self._show(terminalreporter)
        if self._deselected:
            scope = "PARTIAL" if self._finished else "NOT JUDGED"
            terminalreporter.write_line(f"qgate: {scope}, limits that were deselected: {self._deselected}", yellow=True)
        if self._error:
            terminalreporter.write_line(f"qgate: error: {one_line(self._error)}", red=True)

    def _show(self, terminalreporter: pytest.TerminalReporter) -> None:
        from qgate.reporting.console import render

        result = self._result()
        writer = self._config.get_terminal_writer()
        terminalreporter.write(render(result, width=writer.fullwidth, color=writer.hasmarkup))
        for report in self._reports:
            if report.destination is None:
                terminalreporter.write_line("")
                report.write(result)

    def _save(self) -> None:
        result = self._result()
        result.save(self.gate.config.qgate.results)
        for report in self._reports:
            if report.destination is not None:
                report.write(result)

    def _result(self) -> Result:
        result = self.gate.result()
        for model in self.gate.models:
            if model.name in self._finished:
                result = result.with_model(model.name, self._finished[model.name])
        return result

    def _controls_workers(self) -> bool:
        return self._config.pluginmanager.has_plugin("dsession")

    def _progress(self, model: str) -> Progress:
        """Give plain lines under `-v`, else silence: pytest's own display has no room for a bar."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if reporter is None or capture is None or self._config.get_verbosity() < 1:
            return Silent()

        def write_line(line: str) -> None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(line)

        return PlainProgress(model, write_line)


def _config_path(config: pytest.Config) -> Path:
    """Find the file as an absolute path; symbolic links stay, so that node ids are the user's own names."""
    given = config.getoption("qgate_config")
    folder = config.invocation_params.dir if given else config.rootpath
    return Path(os.path.abspath(folder / (given or "qgate.toml")))  # noqa: PTH100  # `resolve` follows links


def _local_plugins(config: pytest.Config, folder: Path) -> list[tuple[object, str]]:
    """Give the root's `conftest.py`, if pytest loaded it, and the one beside the configuration, loaded now if not."""
    if config.option.noconftest:
        return []
    loaded = {
        Path(file): plugin
        for plugin in config.pluginmanager.get_plugins()
        if (file := getattr(plugin, "__file__", None)) and Path(file).name == FILE_NAME
    }
    paths = dict.fromkeys((config.rootpath / FILE_NAME, folder / FILE_NAME))
    plugins: list[tuple[object, str]] = [(loaded[path], str(shown(path))) for path in paths if path in loaded]
    return plugins if folder / FILE_NAME in loaded else plugins + load_local_plugin(folder)


def _explain_timing(result: ModelResult) -> ModelResult:
    """Say why a worker judged no speed: other workers' tests would have slowed either arm."""
    advice = "under xdist no speed is measured, since other tests disturb it; run this limit without -n"
    verdicts = (
        replace(verdict, message=f"{verdict.message}; {advice}") if _is_untimed(verdict) else verdict
        for verdict in result.verdicts
    )
    return replace(result, verdicts=tuple(verdicts))


def _is_untimed(verdict: Verdict) -> bool:
    return verdict.metric == "speedup" and verdict.measured is None


def _limits(items: Sequence[pytest.Item]) -> list[LimitItem]:
    return [item for item in items if isinstance(item, LimitItem)]


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
