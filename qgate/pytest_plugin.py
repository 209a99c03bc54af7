"""The pytest plugin's entry point: its options, and nothing else until one of them is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_OPTIONS = ("qgate", "qgate_config", "qgate_model", "qgate_report", "qgate_no_timing", "qgate_update_blessed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the `--qgate*` options; each of them turns the gate on."""
    group = parser.getgroup("qgate", "int8 quality gate (each of these options turns it on)")
    group.addoption("--qgate", action="store_true", help="judge the models of qgate.toml, one test item a limit")
    group.addoption("--qgate-config", metavar="PATH", help="judge this file instead of qgate.toml")
    group.addoption("--qgate-model", metavar="NAME", action="append", help="judge only this model (repeatable)")
    group.addoption(
        "--qgate-report",
        metavar="FORMAT[:DEST]",
        action="append",
        help="write a report (json, markdown, html, gitlab, a plugin's) to DEST or standard output (repeatable)",
    )
    group.addoption(
        "--qgate-no-timing", action="store_true", help="measure no speed; limits on it are not judged, and fail"
    )
    group.addoption(
        "--qgate-update-blessed",
        action="store_true",
        help="accept models whose limits hold as what later runs are compared with; refused where CI is set",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Open the gate where it is asked for. Raises `pytest.UsageError` where the configuration is wrong."""
    if any(config.getoption(name) for name in _OPTIONS):
        from qgate.pytest_session import open_session

        config.pluginmanager.register(open_session(config), "qgate-session")
