"""Each mistake in a table of limits, with the exact line and message that the user gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from config_mistakes import VALID, Mistake

from qgate.config import read_config
from qgate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qgate.plugins import Registry

MISTAKES = [
    Mistake(
        "no-thresholds",
        VALID[VALID.index("[models.m.thr") :],
        "",
        "4: [models.m.thresholds] holds no table of a metric, so nothing would be judged; add one",
    ),
    Mistake(
        "empty-thresholds",
        VALID[VALID.index("[models.m.thr") :],
        "[models.m.thresholds]",
        "15: [models.m.thresholds] holds no table of a metric, so nothing would be judged; add one",
    ),
    Mistake(
        "no-limit",
        "max_drop = 0.01",
        "",
        "15: [models.m.thresholds.map] holds no limit, so nothing would be judged; "
        "add one of max_drop, lower_bound, max_regression",
    ),
    Mistake(
        "limit", "max_drop", "max_dop", '16: [models.m.thresholds.map] unknown key "max_dop"; did you mean "max_drop"?'
    ),
    Mistake(
        "bound-of-the-other-side",
        "max_drop",
        "upper_bound",
        "16: [models.m.thresholds.map] upper_bound is for metrics where less is better; of map more is: use "
        "lower_bound",
    ),
    Mistake(
        "share-in-percent",
        ".map]\nmax_drop = 0.01",
        ".size_reduction]\nlower_bound = 72",
        "16: [models.m.thresholds.size_reduction] lower_bound: is a share, of which 0.72 is 72 %; expected at most 1, "
        "got 72",
    ),
    Mistake(
        "limit-nan",
        "0.01",
        "nan",
        "16: [models.m.thresholds.map] max_drop: expected a finite number, got the number nan",
    ),
    Mistake(
        "limit-infinite",
        "0.01",
        "-inf",
        "16: [models.m.thresholds.map] max_drop: expected a finite number, got the number -inf",
    ),
    Mistake(
        "limit-string",
        "0.01",
        '"1%"',
        '16: [models.m.thresholds.map] max_drop: expected a finite number, got the string "1%"',
    ),
    Mistake(
        "metric",
        "thresholds.map",
        "thresholds.mpa",
        '15: [models.m.thresholds.mpa] unknown metric "mpa"; did you mean "map"?',
    ),
    Mistake(
        "core-metric",
        "thresholds.map",
        "thresholds.sped_up",
        '15: [models.m.thresholds.sped_up] unknown metric "sped_up"; did you mean "speedup"?',
    ),
    Mistake(
        "limit-of-a-core-metric",
        "thresholds.map",
        "thresholds.speedup",
        '16: [models.m.thresholds.speedup] unknown key "max_drop"; expected one of lower_bound, max_regression',
    ),
    Mistake(
        "drop-type-alone",
        "max_drop = 0.01",
        'drop_type = "relative"\nlower_bound = 0.3',
        "16: [models.m.thresholds.map] drop_type says how max_drop is measured, and there is no max_drop",
    ),
    Mistake(
        "slice-without-where",
        "max_drop = 0.01",
        "[[models.m.thresholds.map.slices]]\nmax_drop = 0.1",
        '16: [models.m.thresholds.map.slices[0]] lacks the key "where": a table',
    ),
    Mistake(
        "slice-empty-where",
        "max_drop = 0.01",
        "[[models.m.thresholds.map.slices]]\nwhere = {}\nmax_drop = 0.1",
        "17: [models.m.thresholds.map.slices[0]] where: names no slice; write for instance "
        '`where = { class = "person" }`',
    ),
    Mistake(
        "slice-where-number",
        "max_drop = 0.01",
        "[[models.m.thresholds.map.slices]]\nwhere = { class = 3 }\nmax_drop = 0.1",
        "17: [models.m.thresholds.map.slices[0].where] class: expected a string, got the integer 3",
    ),
    Mistake(
        "slice-min-samples",
        "max_drop = 0.01",
        '[[models.m.thresholds.map.slices]]\nwhere = { class = "a" }\nmin_samples = 0\nmax_drop = 0.1',
        "18: [models.m.thresholds.map.slices[0]] min_samples: must be at least 1, got 0",
    ),
    Mistake(
        "slice-without-limit",
        "max_drop = 0.01",
        '[[models.m.thresholds.map.slices]]\nwhere = { class = "a" }',
        "16: [models.m.thresholds.map.slices[0]] holds no limit, so nothing would be judged; "
        "add one of max_drop, lower_bound, max_regression",
    ),
    Mistake(
        "slice-twice",
        "max_drop = 0.01",
        '[[models.m.thresholds.map.slices]]\nwhere = { class = "a" }\nmax_drop = 0.1\n'
        '[[models.m.thresholds.map.slices]]\nwhere = { class = "a" }\nlower_bound = 0.1',
        "20: [models.m.thresholds.map.slices[1]] there is a slice of this `where` already; put all its limits into one",
    ),
    Mistake(
        "slice-key",
        "max_drop = 0.01",
        '[[models.m.thresholds.map.slices]]\nwhere = { class = "a" }\nmin_sample = 9\nmax_drop = 0.1',
        '18: [models.m.thresholds.map.slices[0]] unknown key "min_sample"; did you mean "min_samples"?',
    ),
    Mistake(
        "slice-drop-type-alone",
        "max_drop = 0.01",
        '[[models.m.thresholds.map.slices]]\nwhere = { class = "a" }\nlower_bound = 0.1\ndrop_type = "relative"',
        "19: [models.m.thresholds.map.slices[0]] drop_type says how max_drop is measured, and there is no max_drop",
    ),
    Mistake(
        "slice-as-a-table",
        "max_drop = 0.01",
        '[models.m.thresholds.map.slices]\nwhere = { class = "a" }\nmax_drop = 0.1',
        "16: [models.m.thresholds.map] slices: expected an array of values, got a table",
    ),
    Mistake(
        "slices-not-tables",
        "max_drop = 0.01",
        "slices = [3]",
        "16: [models.m.thresholds.map] slices[0]: expected a table, got the integer 3",
    ),
    Mistake(
        "slices-empty",
        "max_drop = 0.01",
        "slices = []",
        "16: [models.m.thresholds.map] slices: is empty, so nothing would be judged; add a slice or leave the key out",
    ),
    Mistake(
        "slices-of-a-core-metric",
        "[models.m.thresholds.map]\nmax_drop = 0.01",
        "[models.m.thresholds.speedup]\nlower_bound = 1.2\nslices = [{ where = { size = 'small' }, lower_bound = 1 }]",
        '17: [models.m.thresholds.speedup] unknown key "slices"; expected one of lower_bound, max_regression',
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_mistakes_are_located_and_explained(mistake: Mistake, write: Callable[[str], Path], registry: Registry) -> None:
    assert mistake.old in VALID
    with pytest.raises(ConfigError) as error:
        read_config(write(VALID.replace(mistake.old, mistake.new)), registry)
    assert str(error.value) == f"qgate.toml:{mistake.expected}"
