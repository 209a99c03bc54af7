"""Each mistake, with the exact line and message that the user gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from config_mistakes import VALID, Mistake

from qgate.config import read_config
from qgate.config.document import OWN_MODEL
from qgate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.plugins import Registry

MISTAKES = [
    Mistake(
        "no-version", "schema_version = 1", "", "1: lacks schema_version; add `schema_version = 1` as the first line"
    ),
    Mistake("other-version", "version = 1", "version = 2", "1: schema_version: this qgate reads 1, got 2"),
    Mistake("version-true", "version = 1", "version = true", "1: schema_version: expected an integer, got true"),
    Mistake("root-key", "[models.m]", "[model.m]", '4: unknown key "model"; did you mean "models"?'),
    Mistake("qgate-key", "seed", "sead", '3: [qgate] unknown key "sead"; did you mean "seed"?'),
    Mistake("qgate-not-a-table", "[qgate]\nseed = 0", "qgate = 7\n", "2: qgate: expected a table, got the integer 7"),
    Mistake("seed", "seed = 0", "seed = -1", "3: [qgate] seed: must be at least 0, got -1"),
    Mistake("seed-bool", "seed = 0", "seed = false", "3: [qgate] seed: expected an integer, got false"),
    Mistake("threads", "seed = 0", "num_threads = 0", "3: [qgate] num_threads: must be at least 1, got 0"),
    Mistake(
        "confidence",
        "seed = 0",
        "confidence = 1",
        "3: [qgate] confidence: must be greater than 0 and at most 0.99, got 1.0",
    ),
    Mistake(
        "choice",
        "seed = 0",
        'on_inconclusive = "pass"',
        '3: [qgate] on_inconclusive: expected "fail" or "warn", got the string "pass"',
    ),
    Mistake(
        "element",
        "seed = 0",
        'plugins = [\n  "a",\n  2]',
        "5: [qgate] plugins[1]: expected a string, got the integer 2",
    ),
    Mistake(
        "not-an-array",
        "seed = 0",
        'plugins = "a"',
        '3: [qgate] plugins: expected an array of strings, got the string "a"',
    ),
    Mistake(
        "variable",
        '"m.pt"',
        '"${QGATE_NOT_SET}/m.pt"',
        "6: [models.m] weights: the environment variable QGATE_NOT_SET is not set",
    ),
    Mistake(
        "variable-in-array",
        '"fbgemm"',
        '"fbgemm"\nignored_scope = [\n"a",\n"${QGATE_NOT_SET}"]',
        "15: [models.m.quantization] ignored_scope[1]: the environment variable QGATE_NOT_SET is not set",
    ),
    Mistake(
        "no-models",
        VALID[VALID.index("[models.m]") :],
        "",
        "1: has no [models.NAME] table, so nothing would be judged; add one",
    ),
    Mistake(
        "empty-models",
        VALID[VALID.index("[models.m]") :],
        "[models]",
        "4: has no [models.NAME] table, so nothing would be judged; add one",
    ),
    Mistake(
        "model-name",
        "models.m",
        'models."a::b"',
        '4: [models."a::b"] a model\'s name becomes part of test names: use letters, digits, "_", "-", "+" and "."',
    ),
    Mistake("model-not-a-table", "seed = 0", "[models]\nn = 3", "4: [models] n: expected a table, got the integer 3"),
    Mistake("no-loader", 'loader = "net"', "", '4: [models.m] lacks the key "loader": a string'),
    Mistake("loader", '"net"', '"nett"', '5: [models.m] unknown loader "nett"; did you mean "net"?'),
    Mistake("no-option", 'weights = "m.pt"', "", '4: [models.m] lacks the key "weights": a path'),
    Mistake("option-key", "weights", "wieghts", '6: [models.m] unknown key "wieghts"; did you mean "weights"?'),
    Mistake(
        "table-key", "m.thresholds", "m.tresholds", '15: [models.m] unknown key "tresholds"; did you mean "thresholds"?'
    ),
    Mistake(
        "option-type",
        '"m.pt"',
        '"m.pt"\nimage_size = "640"',
        '7: [models.m] image_size: expected an integer, got the string "640"',
    ),
    Mistake(
        "option-float",
        '"m.pt"',
        '"m.pt"\nimage_size = 6.5',
        "7: [models.m] image_size: expected an integer, got the number 6.5",
    ),
    Mistake("option-bound", '"m.pt"', '"m.pt"\nimage_size = 0', "7: [models.m] image_size: must be at least 1, got 0"),
    Mistake(
        "option-of-the-plugin's-own-check",
        '"m.pt"',
        '"m.pt"\nimage_size = 100',
        "4: [models.m] image_size must be a multiple of 32, got 100",
    ),
    Mistake("bool", '"m.pt"', '"m.pt"\nhalf = 1', "7: [models.m] half: expected true or false, got the integer 1"),
    Mistake("nan", '"m.pt"', '"m.pt"\ngain = nan', "7: [models.m] gain: expected a finite number, got the number nan"),
    Mistake(
        "union", '"m.pt"', '"m.pt"\nstride = true', '7: [models.m] stride: expected an integer, or "auto", got true'
    ),
    Mistake("union-bound", '"m.pt"', '"m.pt"\nstride = 4', "7: [models.m] stride: must be at least 8, got 4"),
    Mistake(
        "length", '"m.pt"', '"m.pt"\nsize = [1]', "7: [models.m] size: expected an array of 2 integers, got an array"
    ),
    Mistake(
        "date",
        '"m.pt"',
        '"m.pt"\nnote = 2024-01-02',
        "7: [models.m] note: expected a string, got the date or time 2024-01-02",
    ),
    Mistake(
        "nested",
        '"m.pt"',
        '"m.pt"\n[models.m.crop]\ntop = 1\nlfet = 2',
        '9: [models.m.crop] unknown key "lfet"; did you mean "left"?',
    ),
    Mistake("path", '"m.pt"', "3", "6: [models.m] weights: expected a path, got the integer 3"),
    Mistake(
        "no-data",
        VALID[VALID.index("[models.m.data]") : VALID.index("[models.m.quant")],
        "",
        '4: [models.m] lacks the table "data", which says what to calibrate and evaluate on',
    ),
    Mistake(
        "no-evaluation",
        'evaluation = { path = "val.txt" }',
        "",
        '7: [models.m.data] lacks the key "evaluation": a table',
    ),
    Mistake(
        "split-key",
        "evaluation",
        "validation",
        '10: [models.m.data] unknown key "validation"; did you mean "evaluation"?',
    ),
    Mistake(
        "split-not-a-table",
        '{ path = "val.txt" }',
        '"val.txt"',
        '10: [models.m.data] evaluation: expected a table, got the string "val.txt"',
    ),
    Mistake("no-format", 'format = "text"', "", '7: [models.m.data] lacks the key "format": a string'),
    Mistake("format", '"text"', '"txet"', '8: [models.m.data] unknown dataset "txet"; did you mean "text"?'),
    Mistake(
        "format-of-a-split",
        'path = "val.txt"',
        'format = "pears"',
        '10: [models.m.data.evaluation] unknown dataset "pears"; did you mean "pair"?',
    ),
    Mistake(
        "split-option",
        '"val.txt"',
        '"val.txt", spilt = "val"',
        '10: [models.m.data.evaluation] unknown key "spilt"; did you mean "split"?',
    ),
    Mistake("no-split-option", 'path = "val.txt"', "", '10: [models.m.data.evaluation] lacks the key "path": a path'),
    Mistake(
        "samples-of-evaluation",
        '"val.txt"',
        '"val.txt", num_samples = 8',
        '10: [models.m.data.evaluation] unknown key "num_samples"; expected one of format, path, split',
    ),
    Mistake(
        "no-samples",
        '"train.txt"',
        '"train.txt", num_samples = 0',
        "9: [models.m.data.calibration] num_samples: must be at least 1, got 0",
    ),
    Mistake(
        "overlap-percent",
        'format = "text"',
        'format = "text"\nmax_overlap = 5',
        "9: [models.m.data] max_overlap: must be at least 0 and at most 1, got 5.0",
    ),
    Mistake(
        "overlap-misspelt",
        'format = "text"',
        'format = "text"\nmax_overlapp = 0.1',
        '9: [models.m.data] unknown key "max_overlapp"; did you mean "max_overlap"?',
    ),
    Mistake(
        "approach",
        "backend",
        'approach = "qta"\nbackend',
        '12: [models.m.quantization] approach: expected "ptq" or "qat", got the string "qta"',
    ),
    Mistake(
        "qat",
        "backend",
        'approach = "qat"\nbackend',
        '12: [models.m.quantization] approach = "qat" needs data to train on: add train = { ... } to [models.X.data]',
    ),
    Mistake(
        "backend", "fbgemm", "fbgem", '12: [models.m.quantization] unknown backend "fbgem"; did you mean "fbgemm"?'
    ),
    Mistake(
        "calibrator",
        "backend",
        'calibrator = "rnadom"\nbackend',
        '12: [models.m.quantization] unknown calibrator "rnadom"; did you mean "random"?',
    ),
    Mistake(
        "reduce-range",
        "backend",
        "activation = { reduce_range = 1 }\nbackend",
        '12: [models.m.quantization.activation] reduce_range: expected true or false, or "auto", got the integer 1',
    ),
    Mistake(
        "correction",
        "backend",
        'bias_correction = "yes"\nbackend',
        '12: [models.m.quantization] bias_correction: expected true or false, got the string "yes"',
    ),
    Mistake(
        "rounding",
        "backend",
        'weight_rounding = "adaround"\nbackend',
        '12: [models.m.quantization] weight_rounding: expected "nearest" or "gptq", got the string "adaround"',
    ),
    Mistake(
        "misspelt-correction",
        "backend",
        "equalisation = true\nbackend",
        '12: [models.m.quantization] unknown key "equalisation"; did you mean "equalization"?',
    ),
    Mistake(
        "observer",
        "backend",
        'activation = { observer = "histogramm" }\nbackend',
        '12: [models.m.quantization.activation] unknown observer "histogramm"; did you mean "histogram"?',
    ),
    Mistake(
        "role",
        "backend",
        'weight = { observer = "histogram" }\nbackend',
        '12: [models.m.quantization.weight] observer "histogram" is for activations, not for weights',
    ),
    Mistake(
        "observer-option",
        "backend",
        "activation = { bin = 5 }\nbackend",
        '12: [models.m.quantization.activation] unknown key "bin"; did you mean "bins"?',
    ),
    Mistake(
        "observer-option-type",
        "backend",
        'activation = { bins = "many" }\nbackend',
        '12: [models.m.quantization.activation] bins: expected an integer, got the string "many"',
    ),
    Mistake(
        "the-engine's-own-observer-parameter",
        "backend",
        'activation = { observer = "minmax", quant_max = 5 }\nbackend',
        '12: [models.m.quantization.activation] unknown key "quant_max"; expected one of observer, reduce_range',
    ),
    Mistake(
        "no-observer-option",
        "backend",
        'activation = { observer = "percentile" }\nbackend',
        '12: [models.m.quantization.activation] lacks the key "percentile": a finite number',
    ),
    Mistake(
        "option-that-an-observer-fixed",
        "backend",
        'activation = { observer = "most", percentile = 5 }\nbackend',
        '12: [models.m.quantization.activation] unknown key "percentile"; expected one of observer, reduce_range',
    ),
    Mistake(
        "timing",
        "warmup_rounds = 5",
        "max_seconds = 0",
        "14: [models.m.timing] max_seconds: must be greater than 0, got 0.0",
    ),
    Mistake(
        "infinite-time",
        "warmup_rounds = 5",
        "max_seconds = inf",
        "14: [models.m.timing] max_seconds: expected a finite number, got the number inf",
    ),
]


def test_the_file_without_a_mistake_is_read(write: Callable[[str], Path], registry: Registry) -> None:
    assert list(read_config(write(VALID), registry).models) == ["m"]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_mistakes_are_located_and_explained(mistake: Mistake, write: Callable[[str], Path], registry: Registry) -> None:
    assert mistake.old in VALID
    with pytest.raises(ConfigError) as error:
        read_config(write(VALID.replace(mistake.old, mistake.new)), registry)
    assert str(error.value) == f"qgate.toml:{mistake.expected}"


@pytest.mark.parametrize("text", ["[m]\nx = \n", "[m]\n\nx = 1\nx = 2\n"], ids=["no-value", "twice"])
def test_what_is_not_toml_is_located(text: str, write: Callable[[str], Path], registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"^qgate\.toml:[24]: is not TOML: "):
        read_config(write(text), registry)


def test_what_is_not_utf8_is_located(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qgate.toml").write_bytes(b"a = 1\n# caf\xe9\n")
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path / "qgate.toml", registry)
    assert str(error.value) == "qgate.toml:2: is not UTF-8 text; save it as UTF-8"


def test_a_missing_file_says_how_to_write_one(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path / "sub" / "qgate.toml", registry)
    assert str(error.value) == f"sub/qgate.toml: there is no such file; write one with `qgate init`, or {OWN_MODEL}"


def test_a_missing_file_names_one_in_a_folder_above(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qgate.toml").touch()
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub" / "deeper")
    with pytest.raises(ConfigError) as error:
        read_config(Path("qgate.toml"), registry)
    assert str(error.value) == (
        f"qgate.toml: there is no such file; there is {tmp_path / 'qgate.toml'}: run in its folder, or name it with "
        "--qgate-config (pytest) or --config (qgate)"
    )


def test_a_folder_is_not_a_file(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path, registry)
    assert str(error.value) == f"{tmp_path}: is a folder; expected a qgate.toml"


@pytest.mark.parametrize("key", ["results", "blessed"])
@pytest.mark.parametrize("named", [".", "{folder}"])
def test_a_folder_for_a_file_is_named_as_it_was_written(
    key: str, named: str, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = named.format(folder=tmp_path)
    (tmp_path / "qgate.toml").write_text(VALID.replace("seed = 0", f'{key} = "{written}"'), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path / "qgate.toml", registry)
    assert str(error.value) == f'qgate.toml:3: [qgate] {key}: "{written}" is a folder; name a file in it'
