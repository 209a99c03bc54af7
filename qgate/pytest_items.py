"""`qgate.toml` as pytest sees it: a file of models of limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from qgate.config.document import shown
from qgate.errors import QGateError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from qgate.config.model import ModelConfig, ThresholdConfig
    from qgate.pytest_session import GateSession
    from qgate.results import Verdict


class LimitMissedError(Exception):
    """A limit does not hold, or could not be judged."""


class GateFile(pytest.File):
    """A `qgate.toml`."""

    def __init__(self, *, gate_session: GateSession, **node: Any) -> None:
        super().__init__(**node)
        self.gate_session = gate_session

    def collect(self) -> Iterator[GateModel]:
        """Give a node for each chosen model."""
        for model in self.gate_session.gate.models:
            yield GateModel.from_parent(self, name=model.name, gate_session=self.gate_session, model=model)


class GateModel(pytest.Collector):
    """A `[models.X]` table."""

    def __init__(self, *, gate_session: GateSession, model: ModelConfig, **node: Any) -> None:
        super().__init__(**node)
        self.gate_session = gate_session
        self.model = model

    def collect(self) -> Iterator[LimitItem]:
        """Give an item for each limit."""
        for threshold in self.model.thresholds.values():
            for limit in threshold.limits:
                judged = Limit(self.model.name, threshold, limit)
                name = f"{threshold.metric}.{limit}"
                yield LimitItem.from_parent(self, name=name, gate_session=self.gate_session, limit=judged)


@dataclass(frozen=True)
class Limit:
    """One limit of a model."""

    model: str
    threshold: ThresholdConfig
    name: str

    @property
    def line(self) -> int | None:
        """Give the 1-based line that it stands on."""
        return self.threshold.limit_places.get(self.name, self.threshold.place).line


class LimitItem(pytest.Item):
    """The item that judges one limit, by running the gate of its model, once for all the model's limits."""

    def __init__(self, *, gate_session: GateSession, limit: Limit, **node: Any) -> None:
        super().__init__(**node)
        self.gate_session = gate_session
        self.limit = limit

    def runtest(self) -> None:
        """Judge the limit. Raises `LimitMissedError`."""
        verdict = self.gate_session.verdict(self.limit)
        self.user_properties.extend(self._properties(verdict))
        if not verdict.accepted(self.gate_session.gate.config.qgate.on_inconclusive):
            raise LimitMissedError(verdict.message or f"{verdict.status}, and no reason was given")

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> Any:  # pytest's own return type is private
        """Say in one line where the limit is written and why it does not hold."""
        if not isinstance(excinfo.value, LimitMissedError):
            return super().repr_failure(excinfo, style)
        return str(QGateError(f"{self.name}: {excinfo.value}", path=shown(self.path), line=self.limit.line))

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Point at the limit's line in `qgate.toml`."""
        line = self.limit.line
        return self.path, None if line is None else line - 1, f"{self.limit.model}: {self.name}"

    def _properties(self, verdict: Verdict) -> Iterator[tuple[str, object]]:
        """Give what goes into the JUnit file: numbers and lists of them, as far as they exist."""
        figures = self.gate_session.figures(self.limit.model, verdict.metric)
        values = {
            "status": verdict.status,
            "measured": verdict.measured,
            "limit": verdict.limit_value,
            "interval": list(verdict.interval) if verdict.interval else None,
            "baseline": figures.get("baseline"),
            "candidate": figures.get("candidate"),
        }
        return ((name, value) for name, value in values.items() if value is not None)
