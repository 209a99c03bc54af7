"""What a checkpoint file may do to the reader: nothing but be read, or be refused with one line."""

import argparse
import copyreg
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yolov5_yamls as yamls
from yolov5_reference import pickled_checkpoint, yolov5_classes

from qgate.errors import ModelError
from qgate_yolov5.checkpoint import read_checkpoint
from qgate_yolov5.network import YoloV5, build_network


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("yolov5") / "good.pt"
    yaml = {**yamls.p5("n", classes=1), "width_multiple": 0.125, "depth_multiple": 0.1}
    pickled_checkpoint(YoloV5.from_yaml(yaml), yaml, path)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        build_network(read_checkpoint(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def _write_pickle(path: Path, content: bytes, storages: tuple[bytes, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, storage in enumerate(storages):
            archive.writestr(f"archive/data/{key}", storage)
    return path


class _Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (exec, "exec"), (subprocess.getoutput, "getoutput")],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("place", ["epoch", "model", "ema"])
def test_pickle_that_runs_a_command(function: Callable[..., Any], name: str, place: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "evil.pt"
    python = function in {eval, exec}
    command = f"__import__('pathlib').Path({str(ran)!r}).touch()" if python else f"touch {ran}"
    torch.save({place: _Calls(function, command)}, path)
    torch.load(path, weights_only=False)
    assert ran.exists(), "the command is one that would run"
    ran.unlink()

    message = _refusal(path)

    assert "refused, and nothing was run" in message
    assert f"{name}, which" in message
    assert not ran.exists()


def test_command_in_the_reference_to_a_storage(tmp_path: Path) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", _Calls(os.system, f"touch {tmp_path / 'ran'}"), "0", "cpu", 1) if obj == "me" else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"model": "me"})
    assert "system" in _refusal(_write_pickle(tmp_path / "evil.pt", buffer.getvalue()))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        ("torch.nn.modules.module", "torch"),
        ("torch.nn.modules.module", "warnings.sys.modules"),
        ("torch.nn.modules.module", "_global_forward_hooks"),
        ("torch.nn.modules.module", "Module.__subclasses__"),
        ("torch.nn.modules.utils", "itertools"),
        ("torch.nn.modules.conv.os", "system"),
        ("torch.nn.modules", "os"),
        ("models.yolo", "Model.__init__.__globals__"),
        ("models.yolo.os", "system"),
        ("collections", "OrderedDict.__init__"),
        ("builtins", "set.__class__"),
        ("builtins", "getattr"),
        ("torch._utils", "_import_dotted_name"),
        ("torch", "load"),
        ("numpy", "load"),
        ("", "system"),
    ],
    ids=".".join,
)
def test_names_that_lead_elsewhere(name: tuple[str, str], tmp_path: Path) -> None:
    strings = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name)
    path = _write_pickle(tmp_path / "evil.pt", b"\x80\x04" + strings + b"\x93.")
    assert "refused, and nothing was run" in _refusal(path)


def test_module_that_the_file_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qgate_test_trap.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    _refusal(_write_pickle(tmp_path / "evil.pt", b"cqgate_test_trap\nrun\n."))
    assert "qgate_test_trap" not in sys.modules


@pytest.mark.parametrize(
    "target",
    [
        b"cmodels.common\nConv\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
    ],
    ids=["class", "function", "dict", "dtype"],
)
@pytest.mark.parametrize("attribute", ["__setstate__", "__call__", "__new__", "__reduce__"])
def test_attributes_that_a_file_sets_stay_in_the_file(
    target: bytes, attribute: str, tmp_path: Path, good: Path
) -> None:
    state = b"N}X" + struct.pack("<I", len(attribute)) + attribute.encode() + b"c__builtin__\nset\ns\x86"
    path = _write_pickle(tmp_path / "evil.pt", b"\x80\x02" + target + state + b"b.")
    _refusal(path)
    build_network(read_checkpoint(good))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (1, 3)), (0, (2,), (-1,)), (0, (2**40,), (1,))],
)
def test_tensor_outside_its_storage(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(obj, Storage) else None

    buffer = io.BytesIO()
    rebuild = _Calls(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride, False, OrderedDict())
    Pickler(buffer, protocol=2).dump({"model": rebuild})
    message = _refusal(_write_pickle(tmp_path / "evil.pt", buffer.getvalue(), (bytes(16),)))
    assert "truncated or damaged" in message


def test_tensor_that_repeats_its_storage_takes_no_memory(tmp_path: Path) -> None:
    """4 TB of one stored number."""
    with yolov5_classes():
        model = sys.modules["models.yolo"].Model()
        model.model = torch.nn.Sequential(sys.modules["models.yolo"].Detect())
        model.model[0].register_buffer("anchors", torch.zeros(1).expand(2**40))
        model.names, model.model[0].stride = ["cat"], torch.tensor([8.0])
        torch.save({"model": model}, tmp_path / "evil.pt")
    assert "no anchors" in _refusal(tmp_path / "evil.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"x.",
        b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02]" + b"\x32\x86" * 64 + b".",
    ],
    ids=["bytearray of 64 GB", "index of the memo", "doubled 64 times"],
)
def test_a_few_bytes_take_no_memory(content: bytes, tmp_path: Path) -> None:
    path = _write_pickle(tmp_path / "evil.pt", content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(_refusal(path)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "more than 100 MB"


def test_value_without_end_is_quoted_in_part(tmp_path: Path) -> None:
    """Pairs of pairs, 64 deep, each the same one twice: written out, 2 ** 64 numbers."""
    pairs: Any = 1
    for _ in range(64):
        pairs = (pairs, pairs)
    document = {
        "format": "qgate-yolov5",
        "yaml": {},
        "names": ["cat"],
        "state_dict": {},
        "anchors": torch.ones(1, 1, 2),
    }
    torch.save({**document, "stride": [pairs]}, tmp_path / "evil.pt")
    assert "holds no strides" in _refusal(tmp_path / "evil.pt")
    torch.save({**document, "stride": [8], "names": pairs}, tmp_path / "evil.pt")
    assert "class names" in _refusal(tmp_path / "evil.pt")


def test_object_that_a_library_registered_by_number(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 250)
    try:
        command = f"touch {tmp_path / 'ran'}".encode()
        content = b"\x80\x02\x82\xfa" + b"X" + struct.pack("<I", len(command)) + command + b"\x85R."
        path = _write_pickle(tmp_path / "evil.pt", content)
        pickle.loads(content)  # noqa: S301  # our own, to see that it would harm
        assert (tmp_path / "ran").exists(), "the command is one that would run"
        (tmp_path / "ran").unlink()
        _refusal(path)
        assert not (tmp_path / "ran").exists()
    finally:
        copyreg.remove_extension("os", "system", 250)


def test_module_that_holds_itself(tmp_path: Path) -> None:
    with yolov5_classes():
        model = sys.modules["models.yolo"].Model()
        model.model = torch.nn.Sequential(sys.modules["models.yolo"].Detect())
        model.model[0].__dict__["_modules"]["m"] = model.model
        torch.save({"model": model}, tmp_path / "evil.pt")
    assert "nested" in _refusal(tmp_path / "evil.pt")


@pytest.mark.parametrize("kept", [1, 3, 100, 5_000, -5_000, -100, -1])
def test_truncated_file(kept: int, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(good.read_bytes()[:kept])
    assert "truncated or damaged" in _refusal(path) or kept < 4


def test_damaged_pickles_are_refused_or_read(good: Path, tmp_path: Path) -> None:
    rng = random.Random(0)  # noqa: S311 - damage that is the same in every run
    with zipfile.ZipFile(good) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in entries if name.endswith("/data.pkl"))
    path, refused = tmp_path / "damaged.pt", 0
    for _ in range(80):
        content = bytearray(entries[pickled])
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, bytes(content) if name == pickled else entry)
        try:
            build_network(read_checkpoint(path))
        except ModelError:
            refused += 1
    assert refused > 40


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    yaml, path = {**yamls.p5("n", classes=1), "depth_multiple": 0.1}, tmp_path / "diverged.pt"
    network = YoloV5.from_yaml(yaml)
    with torch.no_grad():
        network.model[3].bn.bias[5] = torch.nan
    pickled_checkpoint(network, yaml, path)
    assert "model.3.bn.bias holds NaN or infinity; the training diverged" in _refusal(path)


def test_what_yolov5_evaluates_is_read(good: Path, tmp_path: Path) -> None:
    """`ema`, where there is one; then `model`. Checkpoints within a run hold both."""
    with yolov5_classes():
        other, ours = (torch.load(good, weights_only=False)["model"] for _ in range(2))
        other.names = {0: "other"}
        torch.save({"model": other, "ema": ours, "optimizer": {"state": {}}}, tmp_path / "last.pt")
        torch.save({"model": ours.float(), "ema": None}, tmp_path / "best.pt")
    assert read_checkpoint(tmp_path / "last.pt").names == ("class0",)
    checkpoint = read_checkpoint(tmp_path / "best.pt")
    assert checkpoint.names == ("class0",)
    assert {tensor.dtype for tensor in checkpoint.state_dict.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (argparse.Namespace(imgsz=512), 512),
        ({"imgsz": 416, "epochs": 3}, 416),
        ({"img_size": [320, 640]}, 320),
        ({"imgsz": "large"}, None),
        ({"img_size": []}, None),
        ({}, None),
        (None, None),
    ],
    ids=str,
)
def test_image_size_of_the_training(options: Any, size: int | None, good: Path, tmp_path: Path) -> None:
    with yolov5_classes():
        torch.save({**torch.load(good, weights_only=False), "opt": options}, tmp_path / "best.pt")
    assert read_checkpoint(tmp_path / "best.pt").training_size == size


def test_what_is_not_yolov5(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(OrderedDict(weight=torch.zeros(3)), path)
    assert "a state_dict alone is not a YOLOv5 checkpoint" in _refusal(path)
    torch.save([1, 2], path)
    assert "holds a list" in _refusal(path)
    torch.save({"model": torch.zeros(3)}, path)
    assert "no network" in _refusal(path)
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    assert "holds a torch.nn.modules.linear.Linear; expected a YOLOv5 model of detection or segmentation" in _refusal(
        path
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/constants.pkl", b"")
    assert "a TorchScript export" in _refusal(path)
    torch.save({"model": None}, path, _use_new_zipfile_serialization=False)
    assert "before 1.6" in _refusal(path)


def test_another_task_of_yolov5(tmp_path: Path) -> None:
    with yolov5_classes():
        model = sys.modules["models.yolo"].ClassificationModel()
        model.model = torch.nn.Sequential()
        torch.save({"model": model}, tmp_path / "other.pt")
    assert "models.yolo.ClassificationModel; expected a YOLOv5 model of detection or segmentation" in _refusal(
        tmp_path / "other.pt"
    )


def test_later_models_of_ultralytics(tmp_path: Path) -> None:
    path = _write_pickle(tmp_path / "yolov8n.pt", b"cultralytics.nn.tasks\nDetectionModel\n.")
    assert "not a YOLOv5 v5.0-v7.0 checkpoint: it holds ultralytics.nn.tasks.DetectionModel" in _refusal(path)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    assert "No such file" in _refusal(tmp_path / "missing.pt")
    assert "cannot be read" in _refusal(tmp_path)
    (tmp_path / "empty.pt").touch()
    assert "an empty file" in _refusal(tmp_path / "empty.pt")
    (tmp_path / "page.pt").write_text("<html>")
    assert "not a file that torch.save wrote" in _refusal(tmp_path / "page.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip file, but not one that torch.save wrote" in _refusal(tmp_path / "zip.pt")


def test_official_checkpoint(assets: Path) -> None:
    checkpoint = read_checkpoint(assets / "yolov5n.pt")
    assert checkpoint.sha256 == "4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3"
    assert (len(checkpoint.names), checkpoint.names[0], checkpoint.names[79]) == (80, "person", "toothbrush")
    assert checkpoint.strides == (8, 16, 32)
    assert (checkpoint.anchors[0, 0] * 8).tolist() == [10, 13]
    assert checkpoint.yaml["width_multiple"] == 0.25
