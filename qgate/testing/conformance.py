"""What the conformance suites share: each test is a rule, and a broken one says what was expected and what was got."""

from __future__ import annotations

import functools
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar

from qgate.config.binder import keys_of
from qgate.config.words import describe_type
from qgate.errors import QGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BrokenRuleError", "Conformance", "expect", "expect_one_line", "rule", "spoilt_paths"]

P = ParamSpec("P")
S = TypeVar("S", bound="Conformance")


class BrokenRuleError(AssertionError):
    """A plugin breaks a rule; the message names both, what was expected, and what was got."""


class _UnmetError(Exception):
    """What was expected and what was got; `rule` adds which rule that is."""


class Conformance:
    """A suite for one kind of plugin. A subclass whose name starts with `Test` sets the attribute named `kind`."""

    kind: ClassVar[str]

    @property
    def plugin(self) -> Any:
        """Give the class under test. Raises `TypeError` where the subclass does not name it."""
        plugin = getattr(self, self.kind, None)
        if plugin is None:
            raise TypeError(f"{type(self).__name__} does not say what it tests; write `{self.kind} = ...` in it")
        return plugin

    def expect_name(self) -> None:
        """Break the rule where the class has no name that `qgate.toml` could say."""
        name = getattr(self.plugin, "name", None)
        expect(isinstance(name, str) and name, "`name`, a string that is not empty", repr(name))

    def expect_options(self) -> None:
        """Break the rule where `Options` is no frozen dataclass whose fields can be keys of `qgate.toml`."""
        options: Any = getattr(self.plugin, "Options", None)
        frozen = isinstance(options, type) and is_dataclass(options) and vars(options)["__dataclass_params__"].frozen
        expect(frozen, "`Options`, a frozen dataclass", repr(options))
        for key in keys_of(options):
            describe_type(key.type)


def rule(test: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make a test method a rule, which is the first line of its docstring.

    What its `expect` did not find, and whatever else is raised, becomes a `BrokenRuleError`.
    """
    text = (test.__doc__ or test.__name__).partition("\n")[0].rstrip(".")

    @functools.wraps(test)
    def checked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        name = getattr(self.plugin, "name", None) or self.plugin.__name__
        broken = f'{self.kind} "{name}" breaks the rule "{text}"'
        try:
            test(self, *args, **kwargs)
        except _UnmetError as unmet:
            raise BrokenRuleError(f"{broken}: {unmet}") from None
        except Exception as error:
            raise BrokenRuleError(f"{broken}: expected no exception, got {type(error).__name__}: {error}") from error

    return checked


def expect(holds: object, expected: str, got: object) -> None:
    """Break the rule that calls it where something does not hold."""
    __tracebackhide__ = True
    if not holds:
        raise _UnmetError(f"expected {expected}, got {got}")


def expect_one_line(call: Callable[[], object], situation: str) -> None:
    """Break the rule where `call` does not raise a `QGateError` of one line."""
    __tracebackhide__ = True
    expected = f"one line, a QGateError, {situation}"
    try:
        made = call()
    except QGateError as error:
        lines = str(error).splitlines()
        expect(len(lines) == 1, expected, f"{len(lines)} lines: {lines}")
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything
        expect(False, expected, f"{type(error).__name__}: {error}")
    else:
        expect(False, expected, f"no error but {made!r}")


def spoilt_paths(options: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """Give options whose files are missing, empty, cut short or of another kind, each with what was done.

    Every field of type `Path` is spoilt in turn, in copies below `folder`; of a folder, only that it is missing.
    """
    for item in fields(options) if is_dataclass(options) else ():
        path = getattr(options, item.name)
        if not isinstance(path, Path):
            continue
        yield f"where `{item.name}` is missing", replace(options, **{item.name: folder / "missing" / path.name})
        content = path.read_bytes() if path.is_file() else b""
        spoilt = {"is empty": b"", "is cut short": content[: len(content) // 2], "is text": b"something else\n"}
        for index, (damage, bytes_) in enumerate(spoilt.items() if content else ()):
            copy = folder / f"{item.name}-{index}" / path.name
            copy.parent.mkdir(parents=True)
            copy.write_bytes(bytes_)
            yield f"where `{item.name}` {damage}", replace(options, **{item.name: copy})
