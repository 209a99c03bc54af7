"""The command line. Each command imports what it needs: `qgate --help` must not wait for torch."""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from qgate import __version__, commands
from qgate.errors import QGateError
from qgate.scaffold import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OK, INTERNAL_ERROR, USAGE_ERROR = 0, 3, 4  # as pytest's
INTERRUPTED, READER_LEFT = 130, 141  # as a shell's, for SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code: 0 passed, 1 a limit missed, 3 a bug, 4 a mistake in what was given."""
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except QGateError as error:
        from qgate.reporting.places import one_line

        sys.stderr.write(f"qgate: error: {one_line(error)}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("qgate: interrupted; the last results are as they were\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return READER_LEFT
    except Exception:  # noqa: BLE001  # whatever it is, exit code 1 must keep its meaning
        traceback.print_exc()
        sys.stderr.write("qgate: a bug in qgate or in a plugin; please report it with the lines above\n")
        return INTERNAL_ERROR
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"qgate: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="qgate", description="Decide whether an int8 model may be merged.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"qgate {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_check, _add_report, _add_init, _add_export, _add_explain, _add_tune, _add_selftest, _add_plugins):
        add(parsers)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _command(parsers: _Commands, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
    command = parsers.add_parser(run.__name__, help=summary, description=summary, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_check(parsers: _Commands) -> None:
    command = _command(parsers, commands.check, "run the gate; exits with 1 where a limit is missed")
    _add_config(command)
    command.add_argument("--model", metavar="NAME", action="append", default=[], help="judge only this (repeatable)")
    command.add_argument("--no-timing", action="store_true", help="measure no speed; limits on it fail")
    command.add_argument(
        "--report", metavar="FORMAT[:DEST]", action="append", default=[], help="also write a report (repeatable)"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def _add_report(parsers: _Commands) -> None:
    command = _command(parsers, commands.report, "show the last run's result; exits with 0 whatever it was")
    _add_config(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", dest="format", action="store_const", const="json", help="print the result as JSON")
    form.add_argument("--format", metavar="FORMAT", help="a report format: json, markdown, html, a plugin's")
    other = command.add_mutually_exclusive_group()
    other.add_argument(
        "--compare",
        metavar=("A.json", "B.json"),
        nargs=2,
        type=Path,
        help="show what changed between two results.json",
    )
    other.add_argument("--history", action="store_true", help="show the figures and verdicts of the runs so far")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, help="write there; needs --format or --json")


def _add_init(parsers: _Commands) -> None:
    command = _command(parsers, commands.init, "write a commented qgate.toml for a model and its data")
    command.add_argument("--weights", metavar="FILE", type=Path, required=True, help="the float32 checkpoint")
    command.add_argument("--data", metavar="FILE", type=Path, required=True, help="the evaluation data's description")
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=Path(commands.CONFIG), help="the file to write"
    )


def _add_export(parsers: _Commands) -> None:
    command = _command(parsers, commands.export, "write a model's int8 artifact without judging it")
    _add_config(command)
    command.add_argument("--model", metavar="NAME", help="the model of qgate.toml; may be left out where it has one")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the file to write")
    command.add_argument("--format", metavar="FORMAT", help="onnx, torchscript, a plugin's; default: qgate's artifact")


def _add_explain(parsers: _Commands) -> None:
    command = _command(parsers, commands.explain, "show where int8's time goes, or its accuracy, layer by layer")
    command.add_argument("model", metavar="MODEL", nargs="?", help="the model of qgate.toml; default: every one")
    _add_config(command)
    command.add_argument("--accuracy", action="store_true", help="show the layers' noise instead of their time")
    command.add_argument("--plot", metavar="FILE", type=Path, help="with --accuracy: draw it, too (needs matplotlib)")
    command.add_argument("--all", action="store_true", help="show every layer, not only the worst")
    command.add_argument("--json", action="store_true", help="print JSON: every layer, and of time each of its nodes")


def _add_tune(parsers: _Commands) -> None:
    command = _command(parsers, commands.tune, "search the recipe that keeps most accuracy, write it, and judge it")
    _add_config(command)
    command.add_argument("--model", metavar="NAME", action="append", default=[], help="only this (repeatable)")
    command.add_argument("--minutes", metavar="N", type=_minutes, default=15.0, help="for the search; default: 15")
    command.add_argument("--json", action="store_true", help="print what was tried, and the result, as JSON")


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes greater than 0")
    return minutes


def _add_selftest(parsers: _Commands) -> None:
    command = _command(parsers, commands.selftest, "plant faults in the int8 model and show that the gate catches each")
    _add_config(command)
    command.add_argument("--model", metavar="NAME", action="append", default=[], help="only this model (repeatable)")
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_plugins(parsers: _Commands) -> None:
    command = _command(parsers, commands.plugins, "list what is registered, by which plugin, and the hooks")
    _add_config(command, default=None)
    command.add_argument("--json", action="store_true", help="print JSON")
    new = command.add_subparsers(metavar="new").add_parser(
        "new", help="write a plugin package with a test", description="write a plugin package with a test"
    )
    new.set_defaults(run=commands.new_plugin)
    new.add_argument("name", metavar="NAME", help="qgate-NAME is the folder, NAME the name in qgate.toml")
    new.add_argument("--kind", choices=tuple(KINDS), default="metric", help="what it provides; default: metric")


def _add_config(command: argparse.ArgumentParser, default: Path | None = Path(commands.CONFIG)) -> None:
    command.add_argument("--config", metavar="PATH", type=Path, default=default, help=f"default: {commands.CONFIG}")
