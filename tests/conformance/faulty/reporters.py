"""Reporters with one fault each, and the rule that it breaks."""

from __future__ import annotations

import sys

from qgate.testing import ReporterConformance


class Lines:
    """A line a limit; without a fault."""

    name = "lines"

    def write(self, result, destination):
        if destination is None:
            sys.stdout.write(self.text(result))
        else:
            destination.write_text(self.text(result), encoding="utf-8")

    def text(self, result):
        lines = [
            f"{name}: {verdict.metric} {verdict.status} {verdict.measured}\n"
            for name, model in result.models.items()
            for verdict in model.verdicts
        ]
        return "".join(["qgate\n", *lines])


class Suite(ReporterConformance):
    reporter = Lines


class NamedWithAColon(Lines):
    name = "lines:all"


class PrintsAsWell(Lines):
    def write(self, result, destination):
        if destination:
            sys.stdout.write(f"wrote {destination}\n")
        super().write(result, destination)


class PrintsNothing(Lines):
    def write(self, result, destination):
        if destination:
            super().write(result, destination)


class HidesFailures(Lines):
    def text(self, result):
        return super().text(result).replace("failed", "passed")


class RoundsWhatIsNot(Lines):
    def text(self, result):
        return super().text(result) + "".join(
            f"{verdict.measured:.3f}\n" for model in result.models.values() for verdict in model.verdicts
        )


class Appends(Lines):
    def write(self, result, destination):
        older = destination.read_text(encoding="utf-8") if destination and destination.exists() else ""
        super().write(result, destination)
        if destination:
            destination.write_text(older + destination.read_text(encoding="utf-8"), encoding="utf-8")


FAULTS = {
    NamedWithAColon: "test_it_says_what_it_is",
    PrintsAsWell: "test_a_file_is_written",
    PrintsNothing: "test_standard_output_is_written",
    HidesFailures: "test_what_failed_can_be_told",
    RoundsWhatIsNot: "test_a_result_of_nothing",
    Appends: "test_an_older_report_is_replaced",
}
