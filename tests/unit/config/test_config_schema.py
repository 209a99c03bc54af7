"""The JSON schema that ships: what editors accept and mark."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import tomli

from qgate.config.schema import schema

EXAMPLE = """\
schema_version = 1
[qgate]
plugins     = []
results     = ".qgate/results.json"
artifacts   = ".qgate/artifacts"
blessed     = "qgate-blessed.json"
seed        = 0
num_threads = 1
confidence  = 0.95
on_inconclusive = "fail"
[models.yolov5n]
loader     = "yolov5"
weights    = "weights/yolov5n.pt"
image_size = 640
[models.yolov5n.data]
format      = "yolo"
max_overlap = 0.1
calibration = { path = "data/coco128.yaml", split = "train", num_samples = 64 }
evaluation  = { path = "data/coco.yaml", split = "val" }
[models.yolov5n.quantization]
approach    = "ptq"
backend     = "fbgemm"
calibrator  = "random"
activation  = { observer = "histogram", reduce_range = "auto" }
weight      = { observer = "per_channel_minmax" }
ignored_scope = []
equalization = true
weight_rounding = "gptq"
bias_correction = true
[models.yolov5n.timing]
warmup_rounds = 5
max_seconds   = 60
baseline_form = "fastest"
[models.yolov5n.thresholds.map]
max_drop    = 0.01
drop_type   = "absolute"
lower_bound = 0.25
max_regression = 0.005
[[models.yolov5n.thresholds.map.slices]]
where       = { class = "person", size = "small" }
min_samples = 20
max_drop    = 0.02
drop_type   = "relative"
[models.yolov5n.thresholds.size_reduction]
lower_bound = 0.70
[models.yolov5n.thresholds.speedup]
lower_bound = 1.3
"""


@dataclass(frozen=True)
class Mistake:
    """`old` is replaced by `new` in the example."""

    id: str
    old: str
    new: str


MISTAKES = [
    Mistake("no-version", "schema_version = 1", ""),
    Mistake("other-version", "schema_version = 1", "schema_version = 2"),
    Mistake("root-key", "schema_version = 1", "schema_version = 1\nseed = 1"),
    Mistake("qgate-key", "seed", "sead"),
    Mistake("seed", "seed        = 0", "seed = -1"),
    Mistake("confidence", "0.95", "1"),
    Mistake("no-models", EXAMPLE[EXAMPLE.index("[models") :], ""),
    Mistake("model-name", "models.yolov5n", 'models."a/b"'),
    Mistake("no-loader", 'loader     = "yolov5"', ""),
    Mistake("no-evaluation", 'evaluation  = { path = "data/coco.yaml", split = "val" }', ""),
    Mistake("split", "evaluation", "validation"),
    Mistake("samples", "num_samples = 64", "num_samples = 0"),
    Mistake("approach", '"ptq"', '"qta"'),
    Mistake("quantization-key", "ignored_scope", "ignore"),
    Mistake("reduce-range", '"auto"', '"always"'),
    Mistake("place-is-no-key", "ignored_scope", "place"),
    Mistake("form", '"fastest"', '"slow"'),
    Mistake("seconds", "max_seconds   = 60", "max_seconds = 0"),
    Mistake("no-thresholds", EXAMPLE[EXAMPLE.index("[models.yolov5n.thr") :], ""),
    Mistake("limit", "max_drop ", "max_dop "),
    Mistake("limit-string", "0.01", '"1%"'),
    Mistake("no-limit", "lower_bound = 0.70", ""),
    Mistake("slice-without-where", 'where       = { class = "person", size = "small" }', ""),
    Mistake("slice-of-nothing", '{ class = "person", size = "small" }', "{}"),
    Mistake("slice-of-a-number", '"person"', "3"),
    Mistake("slice-samples", "min_samples = 20", "min_samples = 0"),
    Mistake("slice-key", "min_samples", "samples"),
    Mistake("slice-without-limit", 'max_drop    = 0.02\ndrop_type   = "relative"', ""),
    Mistake("slice-as-a-table", "[[models.yolov5n.thresholds.map.slices]]", "[models.yolov5n.thresholds.map.slices]"),
    Mistake("slices-of-a-speed", "lower_bound = 1.3", "slices = [{ where = { class = 'a' }, lower_bound = 1.3 }]"),
    Mistake("overlap", "max_overlap = 0.1", "max_overlap = 10"),
    Mistake("drop-of-a-speed", "lower_bound = 1.3", "max_drop = 1.3"),
]


def test_the_schema_in_the_package_is_the_one_that_is_generated() -> None:
    assert _shipped() == schema(), "run `python -m qgate.config.schema`"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(_shipped())


def test_the_example_of_the_documentation_is_valid() -> None:
    _validator().validate(tomli.loads(EXAMPLE))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_typical_mistakes_are_marked(mistake: Mistake) -> None:
    assert mistake.old in EXAMPLE
    assert not _validator().is_valid(tomli.loads(EXAMPLE.replace(mistake.old, mistake.new)))


def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_shipped())


def _shipped() -> Any:
    return json.loads(files("qgate.config").joinpath("schema.json").read_text(encoding="utf-8"))
