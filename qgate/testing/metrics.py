"""The rules of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from qgate.engine.digest import digest
from qgate.engine.wire import from_bytes, to_bytes
from qgate.testing.conformance import Conformance, expect, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from qgate.protocols import Metric

    Floats = NDArray[np.float64]

__all__ = ["MetricConformance"]

_ROWS = 6
_LEAST_SAMPLES = 4


class MetricConformance(Conformance):
    """A metric is re-weightable: what it gives for weights is what it would give for the samples that they stand for.

    A subclass sets `metric`, `class_names` as a model would have them, and `samples`: at least four predictions, each
    with its target, that are not all alike. Values may differ by a millionth: sums in another order are rounded
    differently.
    """

    kind = "metric"
    metric: type[Metric]
    class_names: Sequence[str] = ()
    tolerance: ClassVar[float] = 1e-6

    def samples(self) -> Sequence[tuple[Any, Any]]:
        """Give the pairs of prediction and target."""
        raise NotImplementedError(f"{type(self).__name__} needs `samples`: pairs of prediction and target")

    @rule
    def test_it_says_what_it_is(self) -> None:
        """The class says name, unit, direction, and what it compares with."""
        metric: Any = self.metric
        self.expect_name()
        unit, higher_is_better = getattr(metric, "unit", None), getattr(metric, "higher_is_better", None)
        expect(isinstance(unit, str), '`unit`, a string ("" where there is none)', repr(unit))
        expect(isinstance(higher_is_better, bool), "`higher_is_better`, a bool", repr(higher_is_better))
        compares_with = getattr(metric, "compares_with", "targets")
        expect(compares_with in ("targets", "float32"), '`compares_with` "targets" or "float32"', compares_with)

    @rule
    def test_the_samples_can_tell(self) -> None:
        """The samples of this test tell weights apart."""
        samples = self.samples()
        expect(len(samples) >= _LEAST_SAMPLES, f"at least {_LEAST_SAMPLES} samples", len(samples))
        values = self.filled().compute(self.rows(0, 3))
        expect(np.isfinite(values).all() and len(set(values)) > 1, "finite values that differ", values)

    @rule
    def test_one_value_for_each_row(self) -> None:
        """Compute gives one number for each row of weights."""
        metric = self.filled()
        for count in (1, _ROWS):
            values = np.asarray(metric.compute(self.rows(0, 3)[:count]))
            expect(values.shape == (count,), f"shape ({count},) for {count} rows", values.shape)
            expect(values.dtype.kind == "f", "floating-point numbers", values.dtype)

    @rule
    def test_a_weight_of_two(self) -> None:
        """A weight of 2 counts as if the sample were there twice."""
        self._expect_recomputed(1, 3)

    @rule
    def test_a_weight_of_zero(self) -> None:
        """A weight of 0 counts as if the sample were not there."""
        self._expect_recomputed(0, 2)

    @rule
    def test_rows_are_independent(self) -> None:
        """A row of weights gives the same value whatever the other rows are."""
        metric, rows = self.filled(), self.rows(0, 3)
        for where in _places(metric):
            together = metric.compute(rows.copy(), where)
            alone = [metric.compute(row[np.newaxis].copy(), where)[0] for row in rows]
            expect(self._equal(together, alone), f"{alone}, one row at a time{_of(where)},", together)

    @rule
    def test_nothing_is_undefined(self) -> None:
        """A metric that has seen no sample is NaN."""
        values = self._metric().compute(np.ones((2, 0)))
        expect(np.shape(values) == (2,) and np.isnan(values).all(), "NaN for each of two rows", values)

    @rule
    def test_weights_of_zero_are_undefined(self) -> None:
        """A row whose weights are all 0 is NaN."""
        metric = self.filled()
        for where in _places(metric):
            values = metric.compute(np.zeros((2, len(self.samples()))), where)
            expect(np.isnan(values).all(), f"NaN for each of two rows{_of(where)}", values)

    @rule
    def test_weights_stay(self) -> None:
        """Compute leaves the weights as they are."""
        metric, rows = self.filled(), self.rows(0, 3)
        for where in _places(metric):
            given = rows.copy()
            metric.compute(given, where)
            expect(np.array_equal(given, rows), "the weights unchanged", f"changes of {np.abs(given - rows).max()}")

    @rule
    def test_samples_stay(self) -> None:
        """Update and compute leave prediction and target as they are."""
        samples = self.samples()
        before = [digest(pair) for pair in samples]
        metric = self._metric()
        for index, pair in enumerate(samples):
            metric.update(f"sample {index}", *pair)
        metric.compute(self.rows(0, 3))
        changed = [index for index, pair in enumerate(samples) if digest(pair) != before[index]]
        expect(not changed, "no sample changed", f"changes of samples {changed}")

    @rule
    def test_a_later_update_counts(self) -> None:
        """An update after compute counts."""
        metric, last = self.filled(range(len(self.samples()) - 1)), len(self.samples()) - 1
        metric.compute(np.ones((1, last)))
        metric.support()
        metric.update("the last", *self.samples()[last])
        for where in _places(metric):
            weights = np.ones((1, last + 1))
            values, expected = metric.compute(weights, where), self.filled().compute(weights, where)
            expect(self._equal(values, expected), f"{expected}, of all samples{_of(where)},", values)

    @rule
    def test_slices_are_words(self) -> None:
        """Slices are names of dimensions, each with the names of its slices."""
        for dimension, names in self.filled().slices().items():
            words = isinstance(dimension, str) and not isinstance(names, str) and all(isinstance(n, str) for n in names)
            expect(words and len(set(names)) == len(names), "distinct strings", f"{dimension!r}: {names!r}")

    @rule
    def test_a_slice_is_a_part(self) -> None:
        """A slice rests on no more than the whole."""
        metric = self.filled()
        whole = metric.support()
        expect(isinstance(whole, int) and whole > 0, "a positive int as support of the samples", repr(whole))
        for where in _places(metric):
            support = metric.support(where)
            expect(0 <= support <= whole, f"a support of 0 to {whole}{_of(where)}", support)

    @rule
    def test_a_value_rests_on_something(self) -> None:
        """A slice is NaN where its support is 0, and a finite number elsewhere."""
        metric = self.filled()
        for where in _places(metric):
            value, support = metric.compute(np.ones((1, len(self.samples()))), where)[0], metric.support(where)
            expected = f"{'a finite value' if support else 'NaN'} for a support of {support}{_of(where)}"
            expect(np.isfinite(value) if support else np.isnan(value), expected, value)

    @rule
    def test_merged_shards_are_the_whole(self) -> None:
        """Shards that are merged give what all samples give, to the last bit."""
        from qgate.engine.evaluate import is_mergeable  # not above: that imports torch, which a metric may do without

        if not is_mergeable(self.metric):
            pytest.skip("it has no summary and merge")
        whole, rows, shards = self.filled(), self.rows(0, 3), ([0], range(1, 3), range(3, len(self.samples())))
        summaries = [from_bytes(to_bytes(self._mergeable(shard).summary())) for shard in shards]
        behind_its_own, merged = self._mergeable(shards[0]), self._mergeable([])
        for metric, others in ((behind_its_own, summaries[1:]), (merged, summaries)):
            for summary in others:
                metric.merge(summary)
            for where in _places(whole):
                values, expected = metric.compute(rows.copy(), where), whole.compute(rows.copy(), where)
                expect(np.array_equal(values, expected, equal_nan=True), f"{expected}{_of(where)}", values)
                support = metric.support(where)
                expect(support == whole.support(where), f"a support of {whole.support(where)}{_of(where)}", support)

    def _mergeable(self, indices: Iterable[int]) -> Any:
        return self.filled(indices)

    def _expect_recomputed(self, least: int, bound: int) -> None:
        """Expect that random weights from `least` to below `bound` give what repeated samples would."""
        metric, rows = self.filled(), self.rows(least, bound)
        for where in _places(metric):
            for row in rows:
                repeated = np.repeat(np.arange(len(row)), row.astype(int))
                expected = self.filled(repeated).compute(np.ones((1, len(repeated))), where)
                value = metric.compute(row[np.newaxis].copy(), where)
                expect(self._equal(value, expected), f"{expected[0]} for weights {row}{_of(where)}", value[0])

    def _metric(self) -> Metric:
        return self.metric(self.class_names)

    def filled(self, indices: Iterable[int] | None = None) -> Metric:
        """Make a metric that has seen the samples, or those of some indices."""
        metric, samples = self._metric(), self.samples()
        for position, index in enumerate(range(len(samples)) if indices is None else indices):
            metric.update(f"sample {index}, {position}", *samples[index])
        return metric

    def rows(self, least: int, bound: int) -> Floats:
        """Draw rows of weights from `least` to below `bound`; the first samples have one of each."""
        rows = np.random.default_rng(0).integers(least, bound, (_ROWS, len(self.samples()))).astype(np.float64)
        rows[:, : bound - least] = np.arange(least, bound)
        return rows

    def _equal(self, values: Any, expected: Any) -> bool:
        return np.allclose(values, expected, rtol=self.tolerance, atol=self.tolerance, equal_nan=True)


def _places(metric: Metric) -> Iterator[Mapping[str, str] | None]:
    """Give the whole, and each slice."""
    yield None
    for dimension, names in metric.slices().items():
        yield from ({dimension: name} for name in names)


def _of(where: Mapping[str, str] | None) -> str:
    return f" in the slice {dict(where)}" if where else ""
