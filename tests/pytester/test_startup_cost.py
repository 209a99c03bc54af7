from __future__ import annotations

import json
import statistics
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

LIST_MODULES = """
import json, sys

def pytest_unconfigure():
    print("modules:", json.dumps(sorted(sys.modules)))
"""

MEASURE = """
import sys, time
import pytest, _pytest.config.argparsing, pluggy
begin = time.perf_counter()
from qgate import pytest_plugin
pytest_plugin.pytest_addoption(_pytest.config.argparsing.Parser(_ispytest=True))
print(time.perf_counter() - begin)
"""


def _modules(pytester: pytest.Pytester, *arguments: str) -> set[str]:
    pytester.makeconftest(LIST_MODULES)
    lines = pytester.runpytest_subprocess("-s", *arguments).stdout.lines
    (line,) = [line for line in lines if line.startswith("modules: ")]
    return set(json.loads(line.removeprefix("modules: ")))


def test_without_a_flag_hardly_anything_is_imported(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", qgate="schema_version = 1")

    added = _modules(pytester) - _modules(pytester, "-p", "no:qgate")

    assert added == {"qgate", "qgate.errors", "qgate.pytest_plugin"}


def test_importing_and_registering_takes_less_than_ten_milliseconds(pytester: pytest.Pytester) -> None:
    runs = [float(pytester.run(sys.executable, "-c", MEASURE).outlines[0]) for _ in range(5)]

    assert statistics.median(runs) < 0.010
