"""The rules of data sets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from qgate.engine.digest import digest
from qgate.protocols import Sample
from qgate.testing.conformance import Conformance, expect, expect_one_line, rule, spoilt_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qgate.protocols import Dataset

__all__ = ["DatasetConformance"]


class DatasetConformance(Conformance):
    """A data set gives the same samples under the same ids, whoever asks and in whatever order.

    A subclass sets `dataset`, `options`, and the model's `class_names` where targets are of classes.
    """

    kind = "dataset"
    dataset: type[Dataset]
    class_names: Sequence[str] = ()

    def options(self, folder: Path) -> Any:
        """Give options that open a split of two samples or more, with targets; its files can be written to `folder`."""
        raise NotImplementedError(f"{type(self).__name__} needs `options`: what the data set is to open")

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Any:
        """Open the split."""
        return self._open(self.options(tmp_path))

    @rule
    def test_it_says_what_it_is(self) -> None:
        """The class has a name, and Options that qgate.toml can give."""
        self.expect_name()
        self.expect_options()

    @rule
    def test_ids_are_distinct(self, opened: Any) -> None:
        """Each sample has an id of its own."""
        ids = [opened.sample_id(index) for index in range(len(opened))]
        expect(len(ids) > 1 and all(isinstance(name, str) for name in ids), "two strings or more", ids)
        expect(len(set(ids)) == len(ids), "distinct ids", ids)

    @rule
    def test_a_sample_has_its_id(self, opened: Any) -> None:
        """A sample is a `qgate.Sample` with the id that is told without reading it."""
        for index in range(len(opened)):
            sample = opened.sample(index)
            expect(isinstance(sample, Sample), "a qgate.Sample", type(sample).__name__)
            expect(sample.id == opened.sample_id(index), opened.sample_id(index), sample.id)

    @rule
    def test_samples_have_targets(self, opened: Any) -> None:
        """Where targets are required, each sample has one."""
        without = [index for index in range(len(opened)) if opened.sample(index).target is None]
        expect(not without, "a target for each sample", f"None for samples {without}")

    @rule
    def test_reading_repeats(self, opened: Any) -> None:
        """A sample is the same whenever it is read, from any thread."""
        indices = list(range(len(opened)))
        first = [digest(opened.sample(index)) for index in indices]
        with ThreadPoolExecutor(4) as pool:
            again = list(pool.map(lambda index: digest(opened.sample(index)), indices[::-1] * 2))
        expect(again == first[::-1] * 2, "the samples as read one after another", "others")

    @rule
    def test_opening_repeats(self, tmp_path: Path) -> None:
        """The same options give the same samples in the same order."""
        options = self.options(tmp_path)
        first, again = (
            [(data.sample_id(index), data.fingerprint(index), data.strata(index)) for index in range(len(data))]
            for data in (self._open(options), self._open(options))
        )
        expect(len(first) == len(again), f"{len(first)} samples again", len(again))
        for one, other in zip(first, again, strict=True):
            expect(one == other, f"id, fingerprint and strata {one} again", other)

    @rule
    def test_strata_are_words(self, opened: Any) -> None:
        """Strata are frozen sets of strings."""
        for index in range(len(opened)):
            strata = opened.strata(index)
            words = isinstance(strata, frozenset) and all(isinstance(name, str) for name in strata)
            expect(words, "a frozenset of strings", repr(strata))

    @rule
    def test_fingerprints_are_of_the_content(self, opened: Any) -> None:
        """Samples of other content have other fingerprints, those of equal content equal ones."""
        by_content: dict[str, set[str]] = {}
        for index in range(len(opened)):
            by_content.setdefault(digest(opened.sample(index).input), set()).add(opened.fingerprint(index))
        for names in by_content.values():
            expect(len(names) == 1, "one fingerprint for equal contents", f"{len(names)}: {sorted(names)}")
        fingerprints = {name for names in by_content.values() for name in names}
        expected = f"a fingerprint for each of {len(by_content)} contents"
        expect(len(fingerprints) == len(by_content), expected, f"{len(fingerprints)}: {sorted(fingerprints)}")

    @rule
    def test_errors_are_one_line(self, tmp_path: Path) -> None:
        """A file that is missing or damaged is an error of one line."""
        situations = list(spoilt_paths(self.options(tmp_path), tmp_path / "spoilt"))
        if not situations:
            pytest.skip("the options name no file")
        for situation, options in situations:
            expect_one_line(lambda options=options: self._read(options), situation)  # type: ignore[misc]  # its default

    def _open(self, options: Any) -> Any:
        dataset: Any = self.dataset
        return dataset.open(options, class_names=self.class_names, require_targets=True)

    def _read(self, options: Any) -> list[Sample]:
        """Read everything. A folder of nothing is for the engine to refuse: raises `DataError` here too."""
        from qgate.errors import DataError

        opened = self._open(options)
        if not len(opened):
            raise DataError("the data is empty")
        return [opened.sample(index) for index in range(len(opened))]
