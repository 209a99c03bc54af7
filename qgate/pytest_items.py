"""`qgate.toml` as pytest sees it: a file of models of limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from qgate.errors import QGateError
from qgate.reporting.places import one_line
from qgate.results import table_name

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from qgate.config.model import ModelConfig, ThresholdConfig
    from qgate.pytest_session import GateSession


# In a node id they would end or split a name; in a shell they would end a quoted string.
_RESERVED = frozenset("""%:,=[]'"\\`$""")


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
        """Give an item for each limit, those of slices behind their metric's."""
        for limit in limits_of(self.model):
            # Given as text, for pytest to split it at the bracket as it splits the ids that --lf reads.
            node_id = f"{self.nodeid}::{limit.item_name}"
            yield LimitItem.from_parent(
                self, name=limit.item_name, nodeid=node_id, gate_session=self.gate_session, limit=limit
            )


@dataclass(frozen=True)
class Limit:
    """One limit of a model."""

    model: str
    table: ThresholdConfig
    name: str

    @property
    def label(self) -> str:
        """Name it for a reader: `yolov5n: map[class=person] max_drop`."""
        return f"{self.model}: {table_name(self.table.metric, self.table.where)} {self.name}"

    @property
    def item_name(self) -> str:
        """Name the item: `map.max_drop`, `map.max_drop[class=person]`.

        The slice is last, where pytest has the parameters of a test: only there does a node id survive being parsed.
        What would break it is percent-encoded.
        """
        where = {_encoded(key): _encoded(value) for key, value in (self.table.where or {}).items()}
        return table_name(f"{_encoded(self.table.metric)}.{self.name}", where)

    @property
    def line(self) -> int | None:
        """Give the 1-based line that it stands on."""
        return self.table.limit_places.get(self.name, self.table.place).line


class LimitItem(pytest.Item):
    """The item that judges one limit, by running the gate of its model, once for all the model's limits."""

    def __init__(self, *, gate_session: GateSession, limit: Limit, **node: Any) -> None:
        super().__init__(**node)
        self.gate_session = gate_session
        self.limit = limit

    def runtest(self) -> None:
        """Judge the limit. Raises `LimitMissedError`."""
        verdict = self.gate_session.verdict(self.limit)
        self.user_properties.extend(self.gate_session.properties(self.limit, verdict))
        if not verdict.accepted(self.gate_session.gate.config.qgate.on_inconclusive):
            raise LimitMissedError(verdict.message or f"{verdict.status}, and no reason was given")

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> Any:  # pytest's own return type is private
        """Say in one line where the limit is written and why it does not hold."""
        if not isinstance(excinfo.value, LimitMissedError):
            return super().repr_failure(excinfo, style)
        return one_line(QGateError(f"{self.name}: {excinfo.value}", path=self.path, line=self.limit.line))

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Point at the limit's line in `qgate.toml`."""
        line = self.limit.line
        return self.path, None if line is None else line - 1, f"{self.limit.model}: {self.name}"


def limits_of(model: ModelConfig) -> Iterator[Limit]:
    """List a model's limits in the file's order, those of slices behind their metric's."""
    return (Limit(model.name, table, name) for table in model.limit_tables for name in table.limits)


def _encoded(text: str) -> str:
    """Percent-encode what would break a node id, and what cannot be printed."""
    return "".join(quote(char, safe="") if char in _RESERVED or not char.isprintable() else char for char in text)
