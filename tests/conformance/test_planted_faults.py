"""Each rule of each suite is broken by a plugin with one fault, which breaks no other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from faulty import KINDS

if TYPE_CHECKING:
    from types import ModuleType

Outcomes = dict[str, dict[str, str]]
FAULTS = [(kind, fault, broken) for kind, module in KINDS.items() for fault, broken in module.FAULTS.items()]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run `faulty/suites.py` as an author would: the messages of what failed, by class and test."""
    path = tmp_path_factory.mktemp("faults") / "junit.xml"
    suites = Path(__file__).parent / "faulty" / "suites.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suites), f"--junitxml={path}"]
    subprocess.run(command, cwd=suites.parents[3], check=False, capture_output=True, timeout=300)
    found: Outcomes = {}
    for case in ElementTree.parse(path).iter("testcase"):  # noqa: S314  # pytest wrote it a moment ago
        failures = found.setdefault(case.attrib["classname"].rpartition(".")[2], {})
        for failure in (*case.iter("failure"), *case.iter("error")):
            failures[case.attrib["name"]] = failure.attrib["message"]
    return found


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_there_is_a_fault_for_every_rule(kind: ModuleType) -> None:
    rules = [name for name in dir(kind.Suite) if name.startswith("test_")]
    assert set(kind.FAULTS.values()) == set(rules)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_fault_no_rule_is_broken(outcomes: Outcomes, kind: str) -> None:
    suite: Any = KINDS[kind].Suite
    assert outcomes[f"Test_{kind}_{getattr(suite, suite.kind).__name__}"] == {}


@pytest.mark.parametrize(("kind", "fault", "broken"), FAULTS, ids=[fault.__name__ for _, fault, _ in FAULTS])
def test_a_fault_breaks_its_rule_and_no_other(outcomes: Outcomes, kind: str, fault: Any, broken: str) -> None:
    failed = outcomes[f"Test_{kind}_{fault.__name__}"]
    suite: Any = KINDS[kind].Suite
    rule = getattr(suite, broken).__doc__.partition("\n")[0].rstrip(".")

    assert list(failed) == [broken]
    start = f'{suite.kind} "{fault.name or fault.__name__}" breaks the rule "{rule}": expected '
    message = failed[broken].partition(": ")[2]  # behind the exception's name
    assert message.startswith(start)
    assert re.search(r"expected .+, got .+", message[len(start) - len("expected ") :], flags=re.DOTALL)
