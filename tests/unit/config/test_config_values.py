"""What a file without mistakes is read as."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qgate.config import bind, parse, plugin_modules, read_config
from qgate.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.plugins import Registry
    from tests.unit.config.conftest import Plugin

MINIMAL = """\
schema_version = 1
[models.m]
loader = "net"
weights = "m.pt"
data = { format = "text", calibration = { path = "a.txt" }, evaluation = { path = "b.txt", split = "test" } }
thresholds.map.max_drop = 0.01
"""


def test_what_is_left_out_has_the_documented_default(write: Callable[[str], Path], registry: Registry) -> None:
    config = read_config(write(MINIMAL), registry)
    folder = Path.cwd()
    settings, model = config.qgate, config.models["m"]
    assert (settings.plugins, settings.seed, settings.num_threads, settings.confidence) == ((), 0, 1, 0.95)
    assert settings.on_inconclusive == "fail"
    assert settings.results == folder / ".qgate/results.json"
    assert settings.artifacts == folder / ".qgate/artifacts"
    assert settings.blessed == folder / "qgate-blessed.json"
    recipe = model.quantization
    assert (recipe.approach, recipe.backend, recipe.calibrator, recipe.reduce_range) == (
        "ptq",
        "fbgemm",
        "random",
        "auto",
    )
    assert (recipe.activation.observer, recipe.activation.options) == ("histogram", {})
    assert (recipe.weight.observer, recipe.weight.options) == ("per_channel_minmax", {})
    assert (recipe.ignored_scope, recipe.non_traceable) == ((), ())
    assert (recipe.equalization, recipe.weight_rounding, recipe.bias_correction) == (False, "nearest", True)
    assert (model.timing.warmup_rounds, model.timing.max_seconds, model.timing.baseline_form) == (5, 60.0, "fastest")
    assert model.data.calibration.num_samples == 64
    assert model.data.evaluation.num_samples is None
    assert model.data.train is None
    assert model.data.max_overlap == 1.0
    threshold = model.thresholds["map"]
    assert (threshold.drop_type, threshold.where, threshold.slices) == ("absolute", None, ())


def test_the_file_is_identified_by_its_bytes(write: Callable[[str], Path], registry: Registry) -> None:
    config = read_config(write(MINIMAL), registry)
    assert config.sha256 == hashlib.sha256(MINIMAL.encode()).hexdigest()
    assert config.path == Path.cwd() / "qgate.toml"


def test_paths_are_relative_to_the_file_and_know_the_home_folder(
    write: Callable[[str], Path], registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    path = write(MINIMAL.replace('"m.pt"', '"~/m.pt"').replace('"b.txt"', '"/data/b.txt"')).absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = read_config(path, registry).models["m"]
    assert model.options.weights == Path("/home/someone/m.pt")
    assert model.options.cache == tmp_path / "cache"
    assert model.data.calibration.options.path == tmp_path / "a.txt"
    assert model.data.evaluation.options.path == Path("/data/b.txt")


def test_the_home_folder_of_nobody_is_an_error(write: Callable[[str], Path], registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r'^qgate\.toml:4: \[models\.m\] weights: "~nobody-of-that-name/m\.pt": '):
        read_config(write(MINIMAL.replace('"m.pt"', '"~nobody-of-that-name/m.pt"')), registry)


def test_environment_variables_are_put_into_every_string(
    write: Callable[[str], Path], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QGATE_TEST_ROOT", "/data")
    monkeypatch.setenv("QGATE_TEST_NAME", "text")
    text = MINIMAL.replace('"a.txt"', '"${QGATE_TEST_ROOT}/x/${QGATE_TEST_NAME}.txt"').replace(
        '"text"', '"${QGATE_TEST_NAME}"'
    )
    data = read_config(write(text), registry).models["m"].data
    assert data.calibration.format == "text"
    assert data.calibration.options.path == Path("/data/x/text.txt")


def test_plugin_options_take_every_type(write: Callable[[str], Path], registry: Registry) -> None:
    options = """
gain = 2
half = true
mode = "exact"
stride = "auto"
scales = [1, 0.5]
size = [3, 4]
crop.left = 7
note = "a note"
extra = { a = [1, { b = 2 }] }
"""
    bound = read_config(write(MINIMAL + options), registry).models["m"].options
    assert (bound.gain, type(bound.gain)) == (2.0, float)
    assert (bound.half, bound.mode, bound.stride, bound.scales, bound.size) == (
        True,
        "exact",
        "auto",
        (1.0, 0.5),
        (3, 4),
    )
    assert (bound.crop.left, bound.crop.top, bound.note, bound.extra) == (7, 0, "a note", {"a": [1, {"b": 2}]})


def test_a_split_may_name_its_own_format(write: Callable[[str], Path], registry: Registry) -> None:
    text = MINIMAL.replace(
        'evaluation = { path = "b.txt", split = "test" }',
        'evaluation = { format = "pair", images = "i", annotations = "a.json" }',
    )
    evaluation = read_config(write(text), registry).models["m"].data.evaluation
    assert (evaluation.format, evaluation.options.annotations) == ("pair", Path.cwd() / "a.json")


def test_every_split_may_name_its_format_and_then_the_table_need_not(
    write: Callable[[str], Path], registry: Registry
) -> None:
    text = MINIMAL.replace('format = "text", ', "").replace("{ path", '{ format = "text", path')
    assert read_config(write(text), registry).models["m"].data.calibration.format == "text"


def test_observers_keep_the_options_that_were_given(write: Callable[[str], Path], registry: Registry) -> None:
    recipe = """
[models.m.quantization]
activation = { observer = "percentile", percentile = 99, table = "t.json", reduce_range = false }
ignored_scope = ["model.24.*"]
"""
    quantization = read_config(write(MINIMAL + recipe), registry).models["m"].quantization
    assert quantization.reduce_range is False
    assert quantization.activation.options == {"percentile": 99.0, "table": Path.cwd() / "t.json"}
    assert quantization.weight.options == {}
    assert quantization.ignored_scope == ("model.24.*",)


def test_observers_take_the_options_of_the_parents_that_they_pass_them_to(
    write: Callable[[str], Path], registry: Registry
) -> None:
    recipe = 'quantization.activation = { observer = "symmetric", percentile = 99, margin = 1 }\n'
    activation = read_config(write(MINIMAL + recipe), registry).models["m"].quantization.activation
    assert activation.options == {"percentile": 99.0, "margin": 1.0}


def test_limits_keep_their_order_and_their_lines(write: Callable[[str], Path], registry: Registry) -> None:
    limits = """\
thresholds.map.drop_type = "relative"
thresholds.map.lower_bound = 0
thresholds.error_rate.upper_bound = 0.2
thresholds.speedup.lower_bound = 1.3
"""
    thresholds = read_config(write(MINIMAL + limits), registry).models["m"].thresholds
    assert list(thresholds) == ["map", "error_rate", "speedup"]
    assert list(thresholds["map"].limits.items()) == [("max_drop", 0.01), ("lower_bound", 0.0)]
    assert {limit: place.line for limit, place in thresholds["map"].limit_places.items()} == {
        "max_drop": 6,
        "lower_bound": 8,
    }
    assert thresholds["map"].drop_type == "relative"
    assert thresholds["speedup"].place.line == 10


SLICES = """
[[models.m.thresholds.error_rate.slices]]
where = { class = "person", size = "small" }
min_samples = 30
max_drop = 0.1
drop_type = "relative"
upper_bound = 0.5

[[models.m.thresholds.error_rate.slices]]
where = { class = "car" }
max_regression = 0.02
"""


def test_slices_have_limits_of_their_own(write: Callable[[str], Path], registry: Registry) -> None:
    model = read_config(write(MINIMAL + "thresholds.error_rate.max_drop = 0.2\n" + SLICES), registry).models["m"]
    person, car = model.thresholds["error_rate"].slices
    assert (person.where, person.min_samples) == ({"class": "person", "size": "small"}, 30)
    assert (person.limits, person.drop_type) == ({"max_drop": 0.1, "upper_bound": 0.5}, "relative")
    assert (car.where, car.min_samples) == ({"class": "car"}, 10)
    assert (car.limits, car.drop_type) == ({"max_regression": 0.02}, "absolute")
    assert (person.metric, person.place.line, person.limit_places["upper_bound"].line) == ("error_rate", 9, 14)
    assert (car.place.line, car.limit_places["max_regression"].line) == (16, 18)


def test_slices_are_judged_after_their_metric(write: Callable[[str], Path], registry: Registry) -> None:
    model = read_config(write(MINIMAL + SLICES), registry).models["m"]
    assert model.thresholds["error_rate"].limits == {}  # limits of slices are enough
    found = [(table.metric, table.where) for table in model.limit_tables]
    assert found == [
        ("map", None),
        ("error_rate", None),
        ("error_rate", {"class": "person", "size": "small"}),
        ("error_rate", {"class": "car"}),
    ]


def test_slices_may_be_said_in_a_line(write: Callable[[str], Path], registry: Registry) -> None:
    text = MINIMAL + 'thresholds.map.slices = [{ where = { class = "a" }, lower_bound = 0.3 }]\n'
    (only,) = read_config(write(text), registry).models["m"].thresholds["map"].slices
    assert (only.where, only.limits, only.place.line) == ({"class": "a"}, {"lower_bound": 0.3}, 7)


def test_the_overlap_that_is_allowed_is_a_share(write: Callable[[str], Path], registry: Registry) -> None:
    text = MINIMAL.replace("data = {", "data = { max_overlap = 0,")
    assert read_config(write(text), registry).models["m"].data.max_overlap == 0.0


def test_plugins_are_known_before_they_are_needed(write: Callable[[str], Path]) -> None:
    text = MINIMAL.replace("[models.m]", '[qgate]\nplugins = ["a.b", "c"]\n[models.m]')
    assert plugin_modules(parse(write(text))) == ("a.b", "c")


def test_mistakes_of_structure_show_before_torch_is_imported(
    write: Callable[[str], Path], registry: Registry, plugin: Plugin
) -> None:
    with pytest.raises(ConfigError, match="max_dop"):
        read_config(write(MINIMAL.replace("max_drop", "max_dop")), registry)
    assert not plugin.asked_for_observers


def test_a_byte_order_mark_is_no_mistake(write: Callable[[str], Path], registry: Registry) -> None:
    assert list(bind(parse(write("\ufeff" + MINIMAL)), registry).models) == ["m"]


@pytest.mark.parametrize("annotation", ["complex", "Unresolvable"])
def test_options_that_toml_cannot_hold_are_the_plugins_mistake(
    annotation: str, write: Callable[[str], Path], registry: Registry
) -> None:
    options: Any = registry.loaders.get("net").Options
    before = options.__annotations__["gain"]
    options.__annotations__["gain"] = annotation
    try:
        with pytest.raises(PluginError, match=annotation):
            read_config(write(MINIMAL + "gain = 1\n"), registry)
    finally:
        options.__annotations__["gain"] = before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(write: Callable[[str], Path], registry: Registry) -> None:
    path = write(MINIMAL)
    path.chmod(0)
    with pytest.raises(ConfigError, match=r"^qgate\.toml: cannot be read \(Permission denied\)$"):
        read_config(path, registry)
