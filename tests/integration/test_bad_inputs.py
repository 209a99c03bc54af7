"""What a user may hand in by mistake, or an attacker on purpose: one line, before anything slow starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from command_line import in_process

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
NUM_IMAGES = 12  # with fewer than ten nothing can be said of a drop
MANY_SECONDS = 5  # one of these runs takes a few tenths; calibrating and evaluating take longer than this

CONFIG = """
schema_version = 1

[models.digits]
loader = "yolov5"
weights = "digits.pt"
image_size = 192

[models.digits.data]
calibration = {{ format = "coco", images = "coco/images", annotations = "coco/instances.json" }}
evaluation = {{ {evaluation} }}

[models.digits.thresholds.map]
max_drop = 1.0
"""
EVALUATIONS = {
    "coco": 'format = "coco", images = "coco/images", annotations = "coco/instances.json"',
    "yolo": 'format = "yolo", path = "yolo/data.yaml", split = "val"',
    "list": 'format = "yolo", path = "yolo/val.txt"',
}


class Project:
    """A gate on a few images of digits, whose evaluation data is in COCO's or YOLO's layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.image = sorted((root / "coco" / "images").iterdir())[0].name
        self.labels = f"yolo/labels/{Path(self.image).stem}.txt"

    def evaluate_on(self, kind: str) -> None:
        """Write `qgate.toml`."""
        (self.root / "qgate.toml").write_text(CONFIG.format(evaluation=EVALUATIONS[kind]), encoding="utf-8")

    def add_slice(self, where: str) -> int:
        """Limit a slice in `qgate.toml`; give the line of its table."""
        line = self.add_line("qgate.toml", "[[models.digits.thresholds.map.slices]]")
        self.add_line("qgate.toml", f"where = {{ {where} }}")
        self.add_line("qgate.toml", "max_drop = 1.0")
        return line

    def add_line(self, name: str, line: str) -> int:
        """Append a line to a file; give its number."""
        path = self.root / name
        lines = [*path.read_text(encoding="utf-8").splitlines(), line]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return len(lines)

    def edit_json(self, edit: Callable[[Any], None]) -> None:
        """Change the COCO annotations."""
        path = self.root / "coco" / "instances.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        edit(document)
        path.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    source = json.loads((DIGITS / "data" / "val.json").read_text(encoding="utf-8"))
    images = source["images"][:NUM_IMAGES]
    kept = [item for item in source["annotations"] if item["image_id"] in {image["id"] for image in images}]
    shutil.copy(DIGITS / "digits.pt", root)
    for layout in ("coco", "yolo"):
        (root / layout / "images").mkdir(parents=True)
        for image in images:
            shutil.copy(DIGITS / "data" / "val" / image["file_name"], root / layout / "images")
    document = {"images": images, "annotations": kept, "categories": source["categories"]}
    (root / "coco" / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    _write_yolo(root / "yolo", document)
    return root


def _write_yolo(folder: Path, document: dict[str, Any]) -> None:
    (folder / "labels").mkdir()
    names = [category["name"] for category in sorted(document["categories"], key=lambda item: item["id"])]
    (folder / "data.yaml").write_text(f"path: .\nval: images\nnames: {json.dumps(names)}\n", encoding="utf-8")
    listed = [f"images/{image['file_name']}\n" for image in document["images"]]
    (folder / "val.txt").write_text("".join(listed), encoding="utf-8")
    for image in document["images"]:
        lines = [_yolo_line(item, image) for item in document["annotations"] if item["image_id"] == image["id"]]
        (folder / "labels" / image["file_name"]).with_suffix(".txt").write_text("".join(lines), encoding="utf-8")


def _yolo_line(annotation: dict[str, Any], image: dict[str, Any]) -> str:
    x, y, width, height = annotation["bbox"]
    side_x, side_y = image["width"], image["height"]
    centre = f"{(x + width / 2) / side_x:.6f} {(y + height / 2) / side_y:.6f}"
    return f"{annotation['category_id'] - 1} {centre} {width / side_x:.6f} {height / side_y:.6f}\n"


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


class Command:
    """What a malicious pickle runs."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


class Evaluation:
    """The same, by Python's own means."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('ran', 'w').close()",)


def malicious_model(project: Project) -> str:
    torch.save({"model": Command()}, project.root / "digits.pt")
    return "digits.pt: refused, and nothing was run: its pickle names posix.system, *which could run a command; *"


def malicious_extra(project: Project) -> str:
    document = torch.load(project.root / "digits.pt", weights_only=True)
    torch.save({**document, "extra": Evaluation()}, project.root / "digits.pt")
    return "digits.pt: refused, and nothing was run: its pickle names __builtin__.eval, *which could run a command; *"


def truncated_checkpoint(project: Project) -> str:
    path = project.root / "digits.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "digits.pt: *"


def empty_checkpoint(project: Project) -> str:
    (project.root / "digits.pt").write_bytes(b"")
    return "digits.pt: an empty file; expected a YOLOv5 checkpoint"


def missing_checkpoint(project: Project) -> str:
    (project.root / "digits.pt").unlink()
    return "digits.pt: cannot be read (No such file or directory); expected a YOLOv5 checkpoint"


def text_checkpoint(project: Project) -> str:
    (project.root / "digits.pt").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    return "digits.pt: not a file that torch.save wrote; expected a YOLOv5 checkpoint"


def state_dict_alone(project: Project) -> str:
    torch.save(torch.nn.Conv2d(3, 8, 3).state_dict(), project.root / "digits.pt")
    return 'digits.pt: holds no network under "ema" or "model"; a state_dict alone is not a YOLOv5 checkpoint; use *'


def another_network(project: Project) -> str:
    torch.save({"model": torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))}, project.root / "digits.pt")
    return "digits.pt: holds a torch.nn.modules.container.Sequential; expected a YOLOv5 model of detection *"


def class_99(project: Project) -> str:
    line = project.add_line(project.labels, "99 0.5 0.5 0.1 0.1")
    return f"{project.labels}:{line}: class 99 does not exist; expected 0 to 9"


def box_outside_by_yolo(project: Project) -> str:
    line = project.add_line(project.labels, "3 0.98 0.5 0.2 0.1")
    return f"{project.labels}:{line}: the box is outside the image: x 0.88 to 1.08, *"


def four_columns(project: Project) -> str:
    line = project.add_line(project.labels, "3 0.5 0.5 0.1")
    return f"{project.labels}:{line}: has 4 columns; *"


def box_outside_by_coco(project: Project) -> str:
    project.edit_json(lambda document: document["annotations"][2].update(bbox=[0, 0, 5000, 10]))
    return "coco/instances.json: annotation 3: its box, x 0 to 5000, *, is outside its image, *"


def annotation_id_0(project: Project) -> str:
    project.edit_json(lambda document: document["annotations"][0].update(id=0))
    return "coco/instances.json: annotation id 0: *; number annotations from 1"


def missing_image_by_coco(project: Project) -> str:
    (project.root / "coco" / "images" / project.image).unlink()
    return f"coco/instances.json: image images/{project.image} is missing"


def missing_image_by_list(project: Project) -> str:
    line = project.add_line("yolo/val.txt", "images/absent.jpg")
    return f"yolo/val.txt:{line}: image images/absent.jpg is missing"


def image_of_no_bytes(project: Project) -> str:
    (project.root / "yolo" / "images" / project.image).write_bytes(b"")
    return f"yolo/images/{project.image}: the image file is empty (0 bytes); *"


def image_that_is_none(project: Project) -> str:
    (project.root / "yolo" / "images" / project.image).write_text("<html>404</html>", encoding="utf-8")
    return f"yolo/images/{project.image}: the image is damaged or of an unknown format; *"


def calibration_image_of_no_bytes(project: Project) -> str:
    (project.root / "coco" / "images" / project.image).write_bytes(b"")
    return f"coco/images/{project.image}: the image file is empty (0 bytes); *"


def no_images(project: Project) -> str:
    project.edit_json(lambda document: document.update(images=[], annotations=[]))
    return "coco/instances.json: the set is empty: it lists no images"


def no_annotations(project: Project) -> str:
    project.edit_json(lambda document: document.update(annotations=[]))
    return "coco/instances.json: the evaluation set is empty: no image has a labelled box"


def empty_folder(project: Project) -> str:
    for path in (project.root / "yolo" / "images").iterdir():
        path.unlink()
    return "yolo/images: holds no image *"


def no_labels(project: Project) -> str:
    for path in (project.root / "yolo" / "labels").iterdir():
        path.unlink()
    return f"yolo/data.yaml: none of {NUM_IMAGES} images has labels; *"


def nine_categories(project: Project) -> str:
    def drop_the_last(document: Any) -> None:
        document["categories"].pop()
        document["annotations"] = [item for item in document["annotations"] if item["category_id"] < 10]

    project.edit_json(drop_the_last)
    return "coco/instances.json: names 9 classes, the model has 10; *"


def two_names(project: Project) -> str:
    (project.root / "yolo" / "data.yaml").write_text("val: images\nnames: [cat, dog]\n", encoding="utf-8")
    return "yolo/data.yaml: names 2 classes, the model has 10; *"


def unknown_class(project: Project) -> str:
    line = project.add_slice('class = "zreo"')
    return slices_of(line) + 'metric "map" has no class "zreo"; did you mean "zero"?'


def unknown_size(project: Project) -> str:
    line = project.add_slice('class = "zero", size = "tiny"')
    return slices_of(line) + 'metric "map" has no size "tiny"; expected one of large, medium, small'


def unknown_kind(project: Project) -> str:
    line = project.add_slice('clas = "zero"')
    return slices_of(line) + 'metric "map" has no slices by "clas"; did you mean "class"?'


def slices_of(line: int) -> str:
    return f"qgate.toml:{line}: [[]models.digits.thresholds.map.slices] where: "


def percentile_of_101(project: Project) -> str:
    line = project.add_line("qgate.toml", "[models.digits.quantization]")
    project.add_line("qgate.toml", 'activation = { observer = "percentile", percentile = 101 }')
    refusal = (
        'activation observer "percentile" refuses options: percentile = 101.0; expected more than 50 and at most *'
    )
    return f"qgate.toml:{line}: [[]models.digits.quantization] {refusal}"


def three_thousand_bins(project: Project) -> str:
    line = project.add_line("qgate.toml", "[models.digits.quantization]")
    project.add_line("qgate.toml", "activation = { bins = 3000 }")
    refusal = 'activation observer "histogram" refuses options: bins = 3000; expected a power of two, such as 2048'
    return f"qgate.toml:{line}: [[]models.digits.quantization] {refusal}"


def truncated_blessed_results(project: Project) -> str:
    (project.root / "qgate-blessed.json").write_text('{"schema_version": 1, "models": {"dig', encoding="utf-8")
    return (
        "*qgate-blessed.json: is no file of blessed results (JSONDecodeError: *); take it back from version control, *"
    )


def blessed_results_of_another_schema(project: Project) -> str:
    (project.root / "qgate-blessed.json").write_text('{"schema_version": 9, "models": {}}', encoding="utf-8")
    return "*qgate-blessed.json: is no file of blessed results (ValueError: schema_version is 9, this qgate reads 1); *"


def blessed_results_that_are_not_text(project: Project) -> str:
    (project.root / "qgate-blessed.json").write_bytes(b"\xff\xfe\x00")
    return "*qgate-blessed.json: is no file of blessed results (UnicodeDecodeError: *"


def a_blessed_text_for_a_number(project: Project) -> str:
    entry = {"value": "0.5", "conditions": {}}
    document = {"schema_version": 1, "models": {"digits": {"map": entry}}}
    (project.root / "qgate-blessed.json").write_text(json.dumps(document), encoding="utf-8")
    return "*qgate-blessed.json: is no file of blessed results (ValueError: a blessed value is '0.5'); *"


@dataclass(frozen=True)
class Case:
    """How a project is spoilt; `spoil` gives a pattern of the message."""

    spoil: Callable[[Project], str]
    evaluation: str

    def __str__(self) -> str:
        return self.spoil.__name__


CHECKPOINTS = (
    malicious_model,
    malicious_extra,
    truncated_checkpoint,
    empty_checkpoint,
    missing_checkpoint,
    text_checkpoint,
    state_dict_alone,
    another_network,
)
YOLO = (class_99, box_outside_by_yolo, four_columns, image_of_no_bytes, image_that_is_none, empty_folder, no_labels)
COCO = (
    box_outside_by_coco,
    annotation_id_0,
    missing_image_by_coco,
    no_images,
    no_annotations,
    nine_categories,
)
OBSERVERS = (percentile_of_101, three_thousand_bins)
SLICES = (unknown_class, unknown_size, unknown_kind)
BLESSED = (
    truncated_blessed_results,
    blessed_results_of_another_schema,
    blessed_results_that_are_not_text,
    a_blessed_text_for_a_number,
)
CASES = (
    *(Case(spoil, "coco") for spoil in (*CHECKPOINTS, *COCO, *OBSERVERS, *SLICES, *BLESSED)),
    *(Case(spoil, "yolo") for spoil in (*YOLO, two_names, calibration_image_of_no_bytes)),
    Case(missing_image_by_list, "list"),
)


@pytest.mark.parametrize("evaluation", ["coco", "list"])
def test_the_sound_project_is_judged(project: Project, evaluation: str, capsys: pytest.CaptureFixture[str]) -> None:
    project.evaluate_on(evaluation)

    outcome = in_process(capsys)("check")

    assert outcome.code == 0, outcome
    assert f"digits: calibrate ({NUM_IMAGES}): " in outcome.err


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_command_line_refuses_in_one_line_before_anything_slow(
    project: Project, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    project.evaluate_on(case.evaluation)
    expected = case.spoil(project)
    begin = time.perf_counter()

    error = in_process(capsys)("check").error  # checks that no step was announced, let alone a traceback

    assert time.perf_counter() - begin < MANY_SECONDS
    pytest.LineMatcher([error]).fnmatch_lines([expected])
    assert not (project.root / "ran").exists()
    assert not (project.root / ".qgate").exists()


SEEN_BY_PYTEST = {malicious_model, class_99, missing_image_by_coco, unknown_class}


@pytest.mark.parametrize("case", [case for case in CASES if case.spoil in SEEN_BY_PYTEST], ids=str)
def test_pytest_refuses_in_one_line_before_anything_slow(project: Project, case: Case) -> None:
    project.evaluate_on(case.evaluation)
    expected = case.spoil(project)
    command = [sys.executable, "-m", "pytest", "--qgate", "-v", "-p", "no:cacheprovider"]

    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert process.returncode == 4, process.stdout
    (line,) = filter(None, process.stderr.splitlines())
    pytest.LineMatcher([line]).fnmatch_lines([f"ERROR: {expected}"])
    assert "digits: " not in process.stdout
    assert "Traceback" not in process.stdout
    assert {path.name for path in project.root.iterdir()} == {"coco", "digits.pt", "qgate.toml", "yolo"}


def test_a_sound_slice_is_judged_and_one_without_targets_is_an_error(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.evaluate_on("coco")
    project.add_slice('size = "medium"')
    project.add_slice('class = "zero", size = "large"')  # no digit is larger than 96 pixels

    outcome = in_process(capsys)("check")

    assert outcome.code == 1, outcome
    verdicts = json.loads((project.root / ".qgate" / "results.json").read_text())["models"]["digits"]["verdicts"]
    assert [(verdict["slice"], verdict["status"]) for verdict in verdicts] == [
        (None, "passed"),
        ({"size": "medium"}, "passed"),
        ({"class": "zero", "size": "large"}, "error"),
    ]
    assert "map[class=zero,size=large] max_drop: the slice rests on 0 targets, fewer than min_samples = 10" in " ".join(
        outcome.out.split()
    )


def test_calibrating_on_the_evaluation_images_is_refused_where_it_is_forbidden(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.evaluate_on("yolo")
    for path in (project.root / "yolo" / "images").iterdir():  # other names, the same content
        path.rename(path.with_stem(f"renamed-{path.stem}"))
    for path in (project.root / "yolo" / "labels").iterdir():
        path.rename(path.with_stem(f"renamed-{path.stem}"))
    config = project.root / "qgate.toml"
    config.write_text(config.read_text().replace("[models.digits.data]", "[models.digits.data]\nmax_overlap = 0.5"))

    outcome = in_process(capsys)("check")

    assert outcome.code == 1, outcome
    said = " ".join(outcome.out.split())  # however it is wrapped
    assert f"{NUM_IMAGES} of {NUM_IMAGES} calibration samples (100%) are evaluation samples too" in said
    assert "digits: calibrate" not in outcome.err
