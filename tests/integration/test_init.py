"""`qgate init` on the real YOLOv5n and real images: what it writes works as it stands."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import Outcome, in_process

if TYPE_CHECKING:
    from collections.abc import Callable

    Qgate = Callable[..., Outcome]

NUM_IMAGES = 4


@pytest.fixture
def qgate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Qgate:
    """Run `qgate` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process(capsys)


@pytest.fixture
def few_yolo(assets: Path, tmp_path: Path) -> Path:
    """A few of the images with YOLO labels."""
    source, folder = assets / "val128", tmp_path / "val128"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for image in sorted((source / "images").iterdir())[:NUM_IMAGES]:
        shutil.copy(image, folder / "images")
        shutil.copy(source / "labels" / f"{image.stem}.txt", folder / "labels")
    return Path(shutil.copy(source / "data.yaml", folder))


@pytest.fixture
def few_coco(assets: Path, tmp_path: Path) -> Path:
    """A few of the images with COCO annotations."""
    source, folder = assets / "coco128", tmp_path / "coco128"
    (folder / "images").mkdir(parents=True)
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    document["images"] = document["images"][:NUM_IMAGES]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [item for item in document["annotations"] if item["image_id"] in kept]
    for image in document["images"]:
        shutil.copy(source / "images" / image["file_name"], folder / "images")
    path = folder / "instances.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("data", ["few_yolo", "few_coco"])
def test_the_written_file_works_as_it_stands(
    data: str, assets: Path, tmp_path: Path, qgate: Qgate, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(data)

    written = qgate("init", "--weights", assets / "yolov5n.pt", "--data", path.relative_to(tmp_path))
    checked = qgate("check", "--no-timing")

    assert (written.code, written.err) == (0, "")
    assert written.out == "wrote qgate.toml; run `qgate check` or `pytest --qgate`\n"
    model = json.loads((tmp_path / ".qgate" / "results.json").read_text(encoding="utf-8"))["models"]["yolov5n"]
    status = {verdict["metric"]: verdict["status"] for verdict in model["verdicts"]}
    assert status.pop("speedup") == "error"  # timing was switched off
    assert status["size_reduction"] == "passed", checked
    assert status["map"] == "inconclusive"  # of so few images nothing can be said
    assert model["num_evaluation_samples"] == NUM_IMAGES
    assert 0.2 < model["metrics"]["map"]["baseline"] < 0.8
    assert abs(model["metrics"]["map"]["drop"]) < 0.1
    assert checked.code == 1


def test_the_whole_sets_are_accepted(assets: Path, qgate: Qgate, tmp_path: Path) -> None:
    for name, data in (("yolo.toml", "val128/data.yaml"), ("coco.toml", "coco128/instances.json")):
        written = qgate("init", "--weights", assets / "yolov5n.pt", "--data", assets / data, "--output", name)

        assert written.code == 0, written
        assert f"run `qgate check --config {name}` or `pytest --qgate --qgate-config {name}`" in written.out
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "\nmax_drop = 0.03\n" in text  # the share that 128 images can settle
        assert "Calibration samples should not be evaluation samples" in text  # there is one set only
        assert max(map(len, text.splitlines())) <= 200


def test_an_existing_file_stays_as_it_is(assets: Path, tmp_path: Path, qgate: Qgate) -> None:
    (tmp_path / "qgate.toml").write_text("mine", encoding="utf-8")

    outcome = qgate("init", "--weights", assets / "yolov5n.pt", "--data", assets / "val128" / "data.yaml")

    assert outcome.error == "qgate.toml: is there already; remove it, or name another file with --output"
    assert (tmp_path / "qgate.toml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("weights", "data", "expected"),
    [
        ("absent.pt", "val128/data.yaml", "*absent.pt: there is no such file or folder; --weights must name one"),
        ("yolov5n.pt", "absent.yaml", "*absent.yaml: there is no such file or folder; --data must name one"),
        (
            "README.md",
            "val128/data.yaml",
            "*README.md: no plugin recognises it; yolov5: not a file that torch.save *factory*",
        ),
        ("val128", "val128/data.yaml", "*val128: no plugin recognises it; yolov5: cannot be read *"),
        ("yolov5n.pt", "README.md", "*README.md: no plugin recognises it"),
        ("yolov5n.pt", "yolov5n.pt", "*yolov5n.pt: no plugin recognises it"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    assets: Path, qgate: Qgate, weights: str, data: str, expected: str
) -> None:
    outcome = qgate("init", "--weights", assets / weights, "--data", assets / data)

    pytest.LineMatcher([outcome.error]).fnmatch_lines([expected])
    assert list(Path.cwd().iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(assets: Path, tmp_path: Path, qgate: Qgate) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    outcome = qgate(
        "init", "--weights", assets / "yolov5n.pt", "--data", assets / "val128" / "data.yaml", "--output", "file/q.toml"
    )

    assert outcome.error.startswith("file/q.toml: cannot be written: ")


def test_others_may_read_the_file(assets: Path, tmp_path: Path, qgate: Qgate) -> None:
    qgate("init", "--weights", assets / "yolov5n.pt", "--data", assets / "val128" / "data.yaml")

    (written,) = tmp_path.iterdir()  # and no temporary file is left beside it
    assert stat.S_IMODE(written.stat().st_mode) & 0o400
