"""Data sets with one fault each, and the rule that it breaks."""

from __future__ import annotations

import hashlib
import itertools
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qgate import Sample
from qgate.errors import DataError
from qgate.testing import DatasetConformance

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Options:
    path: Path


class Lines:
    """The lines of a text file, a class and a text each; without a fault."""

    name = "lines"
    Options = Options

    def __init__(self, lines):
        self.lines = lines

    @classmethod
    def open(cls, options, *, class_names, require_targets):
        try:
            lines = [line.split(" ", 1) for line in options.path.read_text(encoding="utf-8").splitlines()]
            return cls([(label, text) for label, text in lines if class_names.index(label) >= 0])
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", path=options.path) from error

    def __len__(self):
        return len(self.lines)

    def sample(self, index):
        label, text = self.lines[index]
        return Sample(self.sample_id(index), text, label)

    def sample_id(self, index):
        return f"line-{index + 1}"

    def strata(self, index):
        return frozenset({self.lines[index][0]})

    def fingerprint(self, index):
        return hashlib.sha256(self.lines[index][1].encode()).hexdigest()


class Suite(DatasetConformance):
    dataset = Lines
    class_names = ("good", "bad")

    def options(self, folder):
        (folder / "lines.txt").write_text("good morning\nbad luck\ngood luck\nbad idea\nbad hair\n", encoding="utf-8")
        return Options(folder / "lines.txt")


class WithoutOptions(Lines):
    Options = None


class OneIdForAll(Lines):
    def sample_id(self, index):
        return "a line"


class AnotherIdWhenRead(Lines):
    def sample(self, index):
        return replace(super().sample(index), id=f"line-{index}")


class LosesTargets(Lines):
    def sample(self, index):
        return replace(super().sample(index), target=None)


class OneReaderForAllThreads(Lines):
    def sample(self, index):
        first = threading.current_thread() is threading.main_thread()
        return replace(super().sample(index), target="good" if first else "bad")


class TurnsRound(Lines):
    opened = itertools.count()

    @classmethod
    def open(cls, *arguments, **options):
        opened = super().open(*arguments, **options)
        return cls(opened.lines[:: -1 if next(cls.opened) % 2 else 1])


class ListsStrata(Lines):
    def strata(self, index):
        return [self.lines[index][0]]


class FingerprintsOfNames(Lines):
    def fingerprint(self, index):
        return self.sample_id(index)


class FingerprintsOfPlaces(Lines):
    """As many fingerprints as contents: "luck" has two, "idea" and "hair" share one."""

    def fingerprint(self, index):
        return f"place {min(index, 3)}"


class ManyErrors(Lines):
    @classmethod
    def open(cls, options, **others):
        options.path.read_text(encoding="utf-8")
        return super().open(options, **others)


FAULTS = {
    WithoutOptions: "test_it_says_what_it_is",
    OneIdForAll: "test_ids_are_distinct",
    AnotherIdWhenRead: "test_a_sample_has_its_id",
    LosesTargets: "test_samples_have_targets",
    OneReaderForAllThreads: "test_reading_repeats",
    TurnsRound: "test_opening_repeats",
    ListsStrata: "test_strata_are_words",
    FingerprintsOfNames: "test_fingerprints_are_of_the_content",
    FingerprintsOfPlaces: "test_fingerprints_are_of_the_content",
    ManyErrors: "test_errors_are_one_line",
}
