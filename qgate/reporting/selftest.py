"""What `qgate selftest` found, as text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qgate.engine.selftest import Outcome

_WIDTH = 80
_VERDICTS = {True: "caught", False: "NOT CAUGHT", None: "not planted"}


def is_proven(outcomes: Sequence[Outcome]) -> bool:
    """Say whether the gate holds as it is, and every fault that could be planted was caught."""
    control, *faults = outcomes
    return (
        not control.caught
        and any(fault.caught for fault in faults)
        and all(fault.caught is not False for fault in faults)
    )


def as_text(model: str, outcomes: Sequence[Outcome]) -> str:
    """Write the verdict, then two or more lines a fault: what was done, and what saw it."""
    return "\n".join(_lines(model, outcomes)) + "\n"


def _lines(model: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    control, *faults = outcomes
    planted = [fault for fault in faults if fault.caught is not None]
    caught = sum(bool(fault.caught) for fault in planted)
    verdict = "PROVEN" if is_proven(outcomes) else "NOT PROVEN"
    yield f"qgate selftest: {model}: {verdict}, {caught} of {len(planted)} planted faults were caught"
    yield from _item(control.description, "does not hold" if control.caught else "holds", control.message)
    for fault in faults:
        yield from _item(fault.description, _VERDICTS[fault.caught], fault.message)


def _item(description: str, verdict: str, message: str) -> Iterator[str]:
    yield f"  {description}: {verdict}"
    yield from textwrap.wrap(message, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
