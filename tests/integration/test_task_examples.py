"""The examples of classification and segmentation: gates that pass, planted faults that fail them, mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from command_line import Outcome, in_process

from qgate.engine.gate import Gate
from qgate.plugins import load_registry
from qgate_classification.proposal import propose_data as classification
from qgate_segmentation.proposal import propose_data as segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Qgate = Callable[..., Outcome]

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = {"classification": ["classifier"], "segmentation": ["segmenter", "scenes"]}
IGNORED = shutil.ignore_patterns(".qgate", "__pycache__", "train.py")


@pytest.fixture(params=sorted(MODULES))
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy as the working folder; its modules are forgotten afterwards, for another copy has the same."""
    copy = Path(shutil.copytree(EXAMPLES / request.param, tmp_path / request.param, ignore=IGNORED))
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield copy
    for name in MODULES[request.param]:
        sys.modules.pop(name, None)


@pytest.fixture
def qgate(capsys: pytest.CaptureFixture[str]) -> Qgate:
    return in_process(capsys)


def results(folder: Path) -> Any:
    (model,) = json.loads((folder / ".qgate" / "results.json").read_text())["models"].values()
    return model


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", names, indirect=True)


def test_each_gate_passes_and_planted_faults_fail_it(example: Path, qgate: Qgate) -> None:
    checked = qgate("check")

    assert checked.code == 0, checked
    metric = {"classification": "top1", "segmentation": "miou"}[example.name]
    assert results(example)["metrics"][metric]["candidate"] > 0.8
    assert len(results(example)["metrics"][metric]["slices"]["class"]) in {4, 10}

    tested = qgate("selftest", "--json")

    (outcomes,) = json.loads(tested.out).values()
    caught = {item["fault"]: item["caught"] for item in outcomes}
    # Nothing limits the speed of so small a network.
    assert caught == {"none": False, "scale": True, "channels": True, "class": True, "slow": False, "no data": True}
    lost = next(item for item in outcomes if item["fault"] == "class")
    assert "int8 has lost class" in lost["message"]


def test_pytest_judges_an_example_as_check_does(example: Path, qgate: Qgate) -> None:
    assert qgate("check").code == 0
    command = [sys.executable, "-m", "pytest", "--qgate", "-p", "no:cacheprovider"]
    judged = subprocess.run(command, cwd=example, capture_output=True, text=True, check=False, timeout=120)

    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert re.search(r"(top1|miou) max_drop .* passed", judged.stdout)
    assert re.search(r"[45] passed", judged.stdout)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40] + bytes(30))


def first(pattern: str) -> Path:
    return sorted(Path().glob(pattern))[0]


def write_mask(pixels: np.ndarray) -> None:
    cv2.imwrite(str(first("data/masks/val/*")), pixels)


def rename(old: str, new: str) -> None:
    Path(old).rename(new)


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def few_classes() -> None:
    edit("classifier.py", "class_names=CLASS_NAMES", "class_names=CLASS_NAMES[:4]")
    edit("qgate.toml", '"eight"', '"one"')


@dataclass(frozen=True)
class Mistake:
    """What is done to an example, and what is said then."""

    example: str
    spoil: Callable[[], object]
    message: str

    def __str__(self) -> str:
        return self.message[:40]


MISTAKES = [
    Mistake(
        "classification",
        lambda: rename("data/val/two", "data/val/tow"),
        r'data/val/tow: is no class of the model; did you mean "two"\?',
    ),
    Mistake(
        "classification",
        lambda: shutil.rmtree("data/val"),
        "data/val: expected a folder that holds a folder of images for each class",
    ),
    Mistake(
        "classification",
        lambda: [path.unlink() for path in Path("data/val/six").iterdir()],
        r"data/val/six: holds no image \(",
    ),
    Mistake(
        "classification",
        lambda: shutil.copy(first("data/val/six/*"), "data/val"),
        r"data/val/\d+\.png: is of no class: it lies beside the class folders",
    ),
    Mistake(
        "classification",
        lambda: first("data/val/one/*").write_bytes(b""),
        r"data/val/one/\d+\.png: the image file is empty \(0 bytes\)",
    ),
    Mistake(
        "classification",
        few_classes,
        r'qgate\.toml:\d+: \[models\.digits\.thresholds\.top5\] metric "top5" says nothing of a model of 4 classes',
    ),
    Mistake(
        "segmentation",
        lambda: first("data/masks/val/*").unlink(),
        r"images/val/000\.jpg: has no mask; expected .*masks/val/000\.png",
    ),
    Mistake(
        "segmentation",
        lambda: edit("qgate.toml", 'val", masks = "data/masks/val"', 'val"'),
        'images/val: has no masks; add masks = "FOLDER"',
    ),
    Mistake(
        "segmentation",
        lambda: edit("qgate.toml", '"triangle"', '"tirangle"'),
        r'qgate\.toml:\d+: .* has no class "tirangle"; did you mean "triangle"\?',
    ),
]


@pytest.mark.parametrize(
    ("example", "mistake"), [(one.example, one) for one in MISTAKES], indirect=["example"], ids=str
)
def test_a_mistake_is_one_line_before_anything_slow_starts(example: Path, mistake: Mistake, qgate: Qgate) -> None:
    mistake.spoil()

    assert re.search(mistake.message, qgate("check").error)
    assert not (example / ".qgate").exists()


DAMAGES = [
    Mistake("classification", lambda: damage(first("data/val/one/*")), r"data/val/one/\d+\.png: the image is damaged"),
    Mistake("segmentation", lambda: damage(first("data/masks/val/*")), r"masks/val/000\.png: the mask is damaged"),
    Mistake(
        "segmentation",
        lambda: write_mask(np.full((64, 64), 7, np.uint8)),
        r"000\.png: the pixel in row 0, column 0 is 7; expected 0 to 3",
    ),
    Mistake(
        "segmentation",
        lambda: write_mask(np.zeros((32, 64), np.uint8)),
        r"000\.png: the mask is 64x32 pixels, its image 64x64",
    ),
]


@pytest.mark.parametrize(("example", "mistake"), [(one.example, one) for one in DAMAGES], indirect=["example"], ids=str)
def test_a_damaged_sample_fails_the_gate_by_its_name(example: Path, mistake: Mistake, qgate: Qgate) -> None:
    mistake.spoil()

    assert qgate("check").code == 1
    reasons = {item["message"] for item in results(example)["verdicts"] if item["status"] == "error"}
    assert reasons
    assert all(re.search(mistake.message, reason) for reason in reasons), reasons


@only("classification")
def test_data_of_fewer_classes_than_the_model_has_scores_is_not_judged_by(example: Path, qgate: Qgate) -> None:
    edit("classifier.py", "class_names=CLASS_NAMES", "class_names=()")
    edit(
        "qgate.toml",
        '[[models.digits.thresholds.top1.slices]]\nwhere       = { class = "eight" }\nlower_bound = 0.80\n',
        "",
    )
    for split in ("train", "val"):
        shutil.rmtree(f"data/{split}/zero")

    assert qgate("check").code == 1
    (message,) = {item["message"] for item in results(example)["verdicts"] if item["status"] == "error"}
    assert "the data set has 9 classes, the model gives 10 scores; name the model's classes" in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("classification", {"format": '"image_folder"', "metric": "top1", "evaluation": 'path = "data/val"'}),
        ("segmentation", {"format": '"index_png"', "metric": "miou", "evaluation": 'masks = "data/masks/val"'}),
    ],
)
def test_init_recognises_the_data_whatever_plugin_is_asked_first(data: str, expected: dict[str, str]) -> None:
    proposal = load_registry().propose("qgate_propose_data", EXAMPLES / data / "data")
    others = [propose(EXAMPLES / data / "data") for propose in (classification, segmentation)]
    assert sorted(other is not None for other in others) == [False, True]

    assert proposal["data"]["format"] == expected["format"].strip('"')
    assert list(proposal["thresholds"]) == [expected["metric"]]
    evaluation = proposal["data"]["evaluation"]
    assert all(path.is_dir() for path in evaluation.values())
    assert "train" in str(proposal["data"]["calibration"])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_an_example_is_small(name: str) -> None:
    files = [path for path in (EXAMPLES / name).rglob("*") if path.is_file()]
    kept = [path for path in files if not {".qgate", "__pycache__"} & set(path.parts)]
    assert sum(path.stat().st_size for path in kept) < 500_000


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_document_shows_the_example_as_it_is(name: str) -> None:
    document = (EXAMPLES.parent / "docs" / f"{name}.md").read_text().partition("## Instances")[0]
    files = "\n".join(path.read_text() for path in (EXAMPLES / name).iterdir() if path.suffix in {".py", ".toml"})
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", document, flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        assert block.strip() in files, f"not in the example any more:\n{block}"


def test_the_configuration_shown_for_yolov5_seg_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    document = (EXAMPLES.parent / "docs" / "segmentation.md").read_text().partition("## Instances")[2]
    (block,) = re.findall(r"```toml\n(.*?)```", document, flags=re.DOTALL)
    Path("qgate.toml").write_text("schema_version = 1\n" + block)
    assert list(Gate.open(Path("qgate.toml")).config.models) == ["seg"]
