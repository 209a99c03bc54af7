"""Documents that nobody's encoder wrote: each tries to reach beyond tensors, and must be refused and do nothing."""

from __future__ import annotations

import copy
import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_networks import NETWORKS, reference
from torch import nn

from qgate.errors import ArtifactError
from qgate.quantization.codec import decode, encode
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = NETWORKS["kept_whole"]


@pytest.fixture(scope="module")
def encoded() -> tuple[Any, Any]:
    return encode(reference(NETWORK), NETWORK.inputs())


@dataclass(frozen=True)
class Node:
    """A node to put before the output; PATH in it becomes that of a file which must not be written."""

    op: str
    target: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.target}"[:40]

    def document(self, path: str) -> dict[str, Any]:
        args = [path if value == "PATH" else value for value in self.args]
        return {
            "op": self.op,
            "name": "crafted",
            "target": self.target.replace("PATH", path),
            "args": {"tuple": args},
            "kwargs": self.kwargs,
        }


INPUT = {"node": "input_1"}
CRAFTED = [
    Node("call_function", "os.system", ["touch PATH"]),
    Node("call_function", "posix.system", ["touch PATH"]),
    Node("call_function", "builtins.eval", ["1"]),
    Node("call_function", "builtins.__import__", ["os"]),
    Node("call_function", "torch.load", ["PATH"]),
    Node("call_function", "torch.save", [INPUT, "PATH"]),
    Node("call_function", "torch.jit.save", [INPUT, "PATH"]),
    Node("call_function", "torch.compile", [INPUT]),
    Node("call_function", "torch.hub.load", ["PATH", "model"]),
    Node("call_function", "torch.from_file", ["PATH", True, 4]),
    Node("call_function", "torch.ops.load_library", ["PATH"]),
    Node("call_function", "torch._C._nn.__class__", []),
    Node("call_function", "torch.nn.functional.importlib.import_module", ["os"]),
    Node("call_function", "operator.methodcaller", ["save", "PATH"]),
    Node("call_function", "operator.attrgetter", ["__class__"]),
    Node("call_function", "builtins.getattr", [INPUT, "__class__"]),
    Node("call_function", "builtins.getattr", [INPUT, "tofile"]),
    Node("call_function", "builtins.getattr", [INPUT, {"node": "input_1"}]),
    Node("call_method", "tofile", [INPUT, "PATH"]),
    Node("call_method", "numpy", [INPUT]),
    Node("call_method", "register_hook", [INPUT, INPUT]),
    Node("call_method", "__reduce_ex__", [INPUT, 2]),
    Node("call_method", "add(1); __import__('os').system('touch PATH'); x.add", [INPUT]),
    Node("call_module", "1.save", ["PATH"]),
    Node("call_module", "0.__class__", []),
    Node("call_module", "0(1); open('PATH', 'w'); self.x", []),
    Node("get_attr", "1.save", []),
    Node("get_attr", "0.__init__.__globals__", []),
    Node("placeholder", "x: __import__('os').system('touch PATH') = 0", []),
    Node("call_function", "torch.neg", [INPUT], {"x=open('PATH', 'w'), y": 0}),
    Node("call_function", "torch.neg", [{"pickle": "x"}]),
    Node("call_function", "torch.neg", [{"torch": "load"}]),
    Node("root", "x", []),
]


@pytest.mark.parametrize("node", CRAFTED, ids=str)
def test_a_node_that_reaches_beyond_tensors_is_refused(node: Node, encoded: tuple[Any, Any], tmp_path: Path) -> None:
    document, tensors = copy.deepcopy(encoded[0]), encoded[1]
    assert document["nodes"][0]["name"] == "input_1"
    document["nodes"].insert(-1, node.document(str(tmp_path / "written")))

    with pytest.raises(ArtifactError):
        decode(document, tensors)(*NETWORK.inputs())
    assert not list(tmp_path.iterdir())


def test_a_module_put_over_another_does_not_open_its_methods(encoded: tuple[Any, Any], tmp_path: Path) -> None:
    document, tensors = copy.deepcopy(encoded[0]), dict(encoded[1])
    tensors |= {name.replace("0.", "1.save.", 1): value for name, value in tensors.items() if name.startswith("0.")}
    document["modules"] = {"1.save": document["modules"]["0"], **document["modules"]}
    document["nodes"].insert(-1, Node("call_module", "1.save", ["PATH"]).document(str(tmp_path / "written")))

    with pytest.raises(ArtifactError):
        decode(document, tensors)(*NETWORK.inputs())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path",
    [
        "subprocess.Popen",
        "torch.nn.modules.module.os",
        "torch.nn.modules.conv.F",
        "torch.nn.Module",
        "small_networks.Fork",
    ],
)
def test_a_class_that_is_no_module_of_torch_is_refused(path: str, encoded: tuple[Any, Any]) -> None:
    document = copy.deepcopy(encoded[0])
    document["modules"]["0"]["class"] = path

    with pytest.raises(ArtifactError, match=path):
        decode(document, encoded[1])


@pytest.mark.parametrize("damage", ["nodes", "modules", "attributes"])
def test_a_document_without_a_part_is_refused(damage: str, encoded: tuple[Any, Any]) -> None:
    document = {key: value for key, value in encoded[0].items() if key != damage}

    with pytest.raises(ArtifactError, match="the graph is damaged"):
        decode(document, encoded[1])


class Writer(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


class WritesWhenLoaded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> int:
        return 0

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = False


def scripted(module: nn.Module) -> bytes:
    stream = io.BytesIO()
    with quiet_torch_ao():
        torch.jit.save(torch.jit.script(module), stream)
    return stream.getvalue()


def renamed(archive: bytes, old: str, new: str) -> bytes:
    """Rename files in an archive."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name.replace(old, new), source.read(name))
    return changed.getvalue()


def hidden(archive: bytes, harmless: bytes) -> bytes:
    """Put an archive before another: Python's zipfile reads the last, others may read where the first one points."""
    return archive + harmless


def decode_with_script(encoded: tuple[Any, Any], archive: bytes) -> torch.nn.Module:
    tensors = {**encoded[1], "1.script": torch.frombuffer(bytearray(archive), dtype=torch.uint8)}
    return decode(encoded[0], tensors)


@pytest.mark.parametrize("disguise", ["none", "capitals"])
def test_a_script_that_writes_a_file_is_refused(disguise: str, encoded: tuple[Any, Any], tmp_path: Path) -> None:
    archive = scripted(Writer(str(tmp_path / "written")))
    if disguise == "capitals":
        archive = renamed(archive, ".py", ".PY")
        with quiet_torch_ao():
            assert torch.jit.load(io.BytesIO(archive)) is not None  # torch finds the code under that name too

    with pytest.raises(ArtifactError, match="uses 'save', which is not allowed"):
        decode_with_script(encoded, archive)
    assert not list(tmp_path.iterdir())


def test_a_script_that_runs_when_it_is_loaded_is_refused(encoded: tuple[Any, Any]) -> None:
    with pytest.raises(ArtifactError, match="uses '__setstate__', which is not allowed"):
        decode_with_script(encoded, scripted(WritesWhenLoaded()))


@pytest.mark.parametrize("call", ["ops.image.write_file", "ops . image . write_file", "torch.classes.image.Writer"])
def test_a_script_that_calls_an_extension_is_refused(call: str, encoded: tuple[Any, Any]) -> None:
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as target:
        target.writestr("archive/code/__torch__.py", f"def forward(self, x: Tensor) -> Tensor:\n  return {call}(x)\n")

    with pytest.raises(ArtifactError, match="which is not allowed"):
        decode_with_script(encoded, script.getvalue())


def test_torch_reads_the_files_that_were_checked(encoded: tuple[Any, Any], tmp_path: Path) -> None:
    harmless = bytes(encoded[1]["1.script"].numpy())
    archive = hidden(scripted(Writer(str(tmp_path / "written"))), harmless)

    decode_with_script(encoded, archive)(*NETWORK.inputs())

    assert not list(tmp_path.iterdir())
