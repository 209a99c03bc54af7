"""The rules of reporters."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from qgate.results import Artifact, ModelResult, Result, Verdict
from qgate.testing.conformance import Conformance, expect, rule

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.protocols import Reporter

__all__ = ["ReporterConformance", "a_result"]


class ReporterConformance(Conformance):
    """A reporter writes any result, to a file or to standard output. A subclass sets `reporter`."""

    kind = "reporter"
    reporter: type[Reporter]

    @rule
    def test_it_says_what_it_is(self) -> None:
        """The class has a name."""
        self.expect_name()
        expect(":" not in self.reporter.name, "a `name` without a colon", self.reporter.name)

    @rule
    def test_a_file_is_written(self, tmp_path: Path) -> None:
        """A destination is written as UTF-8, and nothing to standard output."""
        path = tmp_path / "report"
        printed = self._written(a_result(), path)
        expect(path.is_file() and path.read_text(encoding="utf-8"), "a file that holds text", path)
        expect(not printed, "nothing on standard output", repr(printed[:80]))

    @rule
    def test_standard_output_is_written(self, tmp_path: Path) -> None:
        """Without a destination the same text goes to standard output."""
        path = tmp_path / "report"
        self._written(a_result(), path)
        printed = self._written(a_result(), None)
        expect(printed == path.read_text(encoding="utf-8"), "the text of the file", repr(printed[:80]))

    @rule
    def test_what_failed_can_be_told(self, tmp_path: Path) -> None:
        """A result whose limit failed is written otherwise than one whose limit passed."""
        texts = []
        for status in ("passed", "failed"):
            self._written(a_result(status), tmp_path / status)
            texts.append((tmp_path / status).read_text(encoding="utf-8"))
        expect(texts[0] != texts[1], "texts that differ", f"{texts[0][:80]!r} of both")

    @rule
    def test_a_result_of_nothing(self, tmp_path: Path) -> None:
        """A result without models, and one whose limits could not be measured, are written too."""
        for result in (Result("0.1.0", "2026-01-01T00:00:00+00:00", "0" * 64, {}, {}), a_result("error")):
            self._written(result, tmp_path / "report")

    @rule
    def test_an_older_report_is_replaced(self, tmp_path: Path) -> None:
        """A report takes the place of an older one."""
        for name, older in (("new", ""), ("old", "x" * 100_000)):
            (tmp_path / name).write_text(older, encoding="utf-8")
            self._written(a_result(), tmp_path / name)
        given = (tmp_path / "old").read_text(encoding="utf-8")
        expect(given == (tmp_path / "new").read_text(encoding="utf-8"), "the new report alone", f"{len(given)} letters")

    def _written(self, result: Result, path: Path | None) -> str:
        """Write a report; give what was printed."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.reporter().write(result, path)
        return printed.getvalue()


def a_result(status: Any = "failed") -> Result:
    """Give a result of one model, with one limit of that status and one that passed."""
    measured = None if status == "error" else 0.02
    accuracy = Verdict("accuracy", "max_drop", 0.01, measured, status, "why, with <signs> | of `all` kinds", line=9)
    speed = Verdict("size_reduction", "lower_bound", 0.7, 0.74, "passed", line=12)
    metrics: dict[str, Any] = {
        "accuracy": {"baseline": 0.91, "candidate": 0.89, "drop": 0.02, "higher_is_better": True},
        "size_reduction": {"baseline": 400_000, "candidate": 104_000, "value": 0.74},
    }
    model = ModelResult(
        {"approach": "ptq", "backend": "fbgemm", "reduce_range": False},
        Artifact(".qgate/artifacts/näme.pt", 104_000, "0" * 64),
        128,
        metrics,
        (accuracy, speed),
        {"total": 1.5},
    )
    environment = {"python": "3.11", "torch": "2.13.0", "cpu": "a CPU", "isa": ["avx2"], "num_threads": 1}
    return Result("0.1.0", "2026-01-01T00:00:00+00:00", "0" * 64, environment, {"näme": model})
