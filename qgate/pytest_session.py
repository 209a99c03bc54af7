"""One `pytest --qgate` run: what is collected, when the gate runs, where its results go."""

from __future__ import annotations

import json
import traceback
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from qgate.engine.gate import Gate
from qgate.engine.progress import Silent
from qgate.errors import QGateError
from qgate.pytest_files import config_path, local_plugins
from qgate.pytest_items import GateFile, LimitItem, LimitMissedError, limits_of
from qgate.pytest_outcome import BUG, Outcome
from qgate.pytest_workers import explain_timing, is_controller, is_worker, once_among_workers
from qgate.reporting.formats import Report
from qgate.reporting.junit import properties
from qgate.reporting.places import one_line
from qgate.reporting.progress import PlainProgress
from qgate.results import Verdict, result_from_document

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from qgate.engine.progress import Progress
    from qgate.pytest_items import Limit
    from qgate.results import ModelResult, Result

_FOUND = "qgate"  # the attribute of a test report that carries what was found to xdist's controller
_COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def open_session(config: pytest.Config) -> GateSession:
    """Open the gate that the options ask for. Raises `pytest.UsageError` where that cannot be."""
    # Where warnings are errors, a cache of pytest's that cannot be written would end the run without its summary.
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestCacheWarning")
    path = config_path(config)
    try:
        gate = Gate.open(
            path,
            models=config.getoption("qgate_model") or (),
            plugins=local_plugins(config, path.parent),
            timing=not (config.getoption("qgate_no_timing") or is_worker(config)),
            update_blessed=config.getoption("qgate_update_blessed"),
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
        self._published = set[str]()
        self._selected = set[str]()
        self._timed = set[str]()
        self._has_bug = False
        self._session: pytest.Session | None = None
        self._outcome: Outcome | None = None

    def verdict(self, limit: Limit) -> Verdict:
        """Give the verdict of one limit, running the model's gate where it has not run yet."""
        if limit.model not in self._finished:
            self._finished[limit.model] = self._run(limit.model)
        table = limit.table
        for verdict in self._finished[limit.model].verdicts:
            if (verdict.metric, verdict.limit, verdict.slice) == (table.metric, limit.name, table.where):
                return verdict
        message = "the gate gave no verdict on this limit"
        return Verdict(table.metric, limit.name, table.limits[limit.name], None, "error", message, table.where)

    def properties(self, limit: Limit, verdict: Verdict) -> list[tuple[str, object]]:
        """Give what goes into the JUnit file."""
        return properties(verdict, self._finished[limit.model])

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, whose exit status is settled last of all."""
        self._session = session

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> GateFile | None:
        """Collect the gate's own configuration file, where pytest comes across it."""
        is_ours = file_path.name == self.path.name and file_path.samefile(self.path)
        return GateFile.from_parent(parent, path=file_path, gate_session=self) if is_ours else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the gate's items where pytest did not come across the file: `testpaths` or arguments led elsewhere."""
        if not _limits(items):
            items.extend(session.genitems(GateFile.from_parent(session, path=self.path, gate_session=self)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Find what is wrong with models and data before any test runs."""
        if self._config.option.collectonly or is_worker(self._config):
            return
        self._selected = {limit.label for limit in _limits(session.items)}
        self._timed = {limit.model for limit in _limits(session.items) if limit.table.metric == "speedup"}
        if not (self._selected or is_controller(self._config)):
            return
        try:
            self.gate.preflight()
        except QGateError as error:
            raise pytest.UsageError(one_line(error)) from error

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the report of a limit say what was found, for xdist's controller to hear."""
        report = yield
        if isinstance(item, LimitItem) and call.when == "call":
            failure = call.excinfo.value if call.excinfo else None
            is_bug = isinstance(failure, Exception) and not isinstance(failure, LimitMissedError)
            found = {"limit": item.limit.label, "is_bug": is_bug, "result": self._publish(item.limit.model)}
            setattr(report, _FOUND, found)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over what was found, here or in a worker."""
        found = getattr(report, _FOUND, None)
        if found is None or is_worker(self._config):
            return
        self._selected.add(found["limit"])
        self._has_bug |= found["is_bug"]
        if found["result"]:
            self._finished.update(_models(found["result"]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Save what was found, also where limits were left out; an interrupted run leaves the last results alone."""
        unjudged = is_worker(self._config) or self._config.option.collectonly
        if unjudged or exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        with self._settled_exit_status():
            self._outcome = Outcome(self._config, self.gate, self._result())
            self._outcome.record_in_junit()
            if exitstatus in _COMPLETE and not self._has_bug:
                self._outcome.save(self._reports)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Close the run with the table of limits, and say what was left out of it."""
        if self._outcome is not None:
            with self._settled_exit_status():
                self._outcome.show(terminalreporter, self._reports)
            if self._has_bug:
                terminalreporter.write_line(f"qgate: {BUG}", red=True)

    def _run(self, model: str) -> ModelResult:
        progress = self._progress(model)
        if not is_worker(self._config):
            return self.gate.run(model, progress, timing=model in self._timed)

        def run() -> str:
            found = explain_timing(self.gate.run(model, progress))
            return self.gate.result().with_model(model, found).to_json()

        return _models(once_among_workers(self._config, model, run))[model]

    def _publish(self, model: str) -> str | None:
        """Give a model's result as JSON where a worker has it and has not said so yet."""
        if not is_worker(self._config) or model in self._published or model not in self._finished:
            return None
        self._published.add(model)
        return self.gate.result().with_model(model, self._finished[model]).to_json()

    def _result(self) -> Result:
        """Give the verdicts on the limits that were selected, and name the others that there is none on."""
        result = self.gate.result()
        judged = set[str]()
        for model in self.gate.models:
            if model.name in self._finished:
                found = self._finished[model.name]
                verdicts = {f"{model.name}: {verdict.name}": verdict for verdict in found.verdicts}
                counted = self._selected & verdicts.keys()
                judged |= counted
                kept = tuple(verdict for label, verdict in verdicts.items() if label in counted)
                result = result.with_model(model.name, replace(found, verdicts=kept))
        every = [limit.label for model in self.gate.models for limit in limits_of(model)]
        return replace(result, not_judged=tuple(label for label in every if label not in judged))

    @contextmanager
    def _settled_exit_status(self) -> Iterator[None]:
        """Settle the exit status by what happens within; a bug there is shown, and must not look like a verdict."""
        try:
            yield
        except Exception:  # noqa: BLE001  # pytest would end with 1, which says that a limit is missed
            self._has_bug = True
            traceback.print_exc()
        if self._session is None or self._outcome is None:
            return
        if self._has_bug:
            self._session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        elif self._outcome.errors:
            self._session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif self._session.exitstatus == pytest.ExitCode.OK and not self._outcome.is_judged:
            self._session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

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


def _limits(items: Sequence[pytest.Item]) -> list[Limit]:
    return [item.limit for item in items if isinstance(item, LimitItem)]


def _models(text: str) -> dict[str, ModelResult]:
    return result_from_document(json.loads(text), "an xdist worker's result").models
