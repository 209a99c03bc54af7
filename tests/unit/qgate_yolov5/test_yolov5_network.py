from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yolov5_yamls as yamls
from torch import nn
from yolov5_reference import pickled_checkpoint, randomize, reference_maps

from qgate.errors import ModelError
from qgate_yolov5 import blocks
from qgate_yolov5.checkpoint import read_checkpoint, save_checkpoint
from qgate_yolov5.network import YoloV5, build_network


def test_official_network_gives_what_its_own_wiring_gives(assets: Path) -> None:
    path = assets / "yolov5n.pt"
    image = torch.rand(1, 3, 256, 320, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = build_network(read_checkpoint(path))(image)
        expected = reference_maps(path, image)
    assert [tuple(one.shape) for one in maps] == [(1, 255, 32, 40), (1, 255, 16, 20), (1, 255, 8, 10)]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-4)


@dataclass(frozen=True)
class Variant:
    id: str
    yaml: dict[str, Any]
    version: str = "7.0"
    activation: nn.Module | None = None


VARIANTS = (
    Variant("n", yamls.p5("n", classes=2)),
    Variant("s", yamls.p5("s", classes=3)),
    Variant("n6", yamls.p6("n", classes=2)),
    Variant("v5", yamls.p5("n", classes=2, stem=yamls.V5_STEM, deepest=yamls.V5_DEEPEST), "5.0"),
    Variant("v5-csp-leaky", yamls.p5("n", classes=2, block="BottleneckCSP"), "5.0", nn.LeakyReLU(0.1, inplace=True)),
    Variant("v5-hardswish", yamls.p5("n", classes=2), "5.0", nn.Hardswish()),
    Variant("transformer", yamls.p5("n", classes=2, deepest=yamls.TRANSFORMER_DEEPEST)),
    Variant("segmentation", yamls.p5("n", classes=2, last=yamls.SEGMENT)),
    Variant("ghost", yamls.p5("n", classes=2, block="C3Ghost")),
    Variant("c3spp-dwconv", yamls.p5("n", classes=2, stem=yamls.DEPTHWISE_STEM, deepest=yamls.C3SPP_DEEPEST)),
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_pickled_variants_give_what_their_own_wiring_gives(variant: Variant, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = YoloV5.from_yaml(variant.yaml)
    randomize(network)
    if variant.activation is not None:
        network.set_activation(variant.activation)
    path = tmp_path / "best.pt"
    pickled_checkpoint(network, variant.yaml, path, version=variant.version)
    image = torch.rand(2, 3, 64, 64)

    rebuilt = build_network(read_checkpoint(path))

    assert not rebuilt.training
    assert list(rebuilt.state_dict()) == list(network.state_dict())
    with torch.no_grad():
        maps, traced = rebuilt(image), torch.fx.symbolic_trace(rebuilt)(image)
        expected = reference_maps(path, image)
    for one, same, other in zip(maps, traced, expected, strict=True):
        assert torch.equal(one, same)
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


# Millions of parameters, as YOLOv5's README lists them for its released checkpoints.
@pytest.mark.parametrize(
    ("yaml", "millions"),
    [
        (yamls.p5("n"), 1.9),
        (yamls.p5("s"), 7.2),
        (yamls.p5("m"), 21.2),
        (yamls.p5("l"), 46.5),
        (yamls.p5("x"), 86.7),
        (yamls.p5("n", last=yamls.SEGMENT), 2.0),
        (yamls.p5("s", last=yamls.SEGMENT), 7.6),
        (yamls.p5("m", last=yamls.SEGMENT), 22.0),
        (yamls.p6("n"), 3.2),
        (yamls.p6("s"), 12.6),
        (yamls.p6("m"), 35.7),
        (yamls.p6("l"), 76.8),
        (yamls.p6("x"), 140.7),
    ],
    ids=["n", "s", "m", "l", "x", "n-seg", "s-seg", "m-seg", "n6", "s6", "m6", "l6", "x6"],
)
def test_published_sizes(yaml: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        network = YoloV5.from_yaml(yaml)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_untrained_network_has_the_strides_and_anchors_of_its_yaml() -> None:
    network = YoloV5.from_yaml(yamls.p6("n"), num_classes=3)
    assert network.strides == (8, 16, 32, 64)
    assert network.anchors[3, 2].tolist() == pytest.approx([925 / 64, 792 / 64])
    assert network.training


@pytest.mark.parametrize(
    "block",
    [
        blocks.Bottleneck(8, 8),
        blocks.BottleneckCSP(8, 8),
        blocks.C3(8, 8),
        blocks.C3Ghost(8, 8),
        blocks.C3SPP(8, 8),
        blocks.C3TR(8, 8),
        blocks.Conv(8, 8),
        blocks.DWConv(8, 8),
        blocks.Focus(8, 8),
        blocks.GhostBottleneck(8, 16, s=2),
        blocks.GhostConv(8, 8),
        blocks.SPP(8, 8),
        blocks.SPPF(8, 8),
    ],
    ids=lambda block: type(block).__name__,
)
def test_every_block_is_traceable(block: nn.Module) -> None:
    x = torch.rand(1, 8, 6, 4)
    block.eval()
    assert torch.equal(torch.fx.symbolic_trace(block)(x), block(x))


def test_activation_of_the_yaml_is_used() -> None:
    network = YoloV5.from_yaml({**yamls.p5("n", classes=2), "activation": "nn.LeakyReLU(0.1)"})
    found = {(type(m), m.negative_slope) for name, m in network.named_modules() if name.endswith(".act")}
    assert found == {(nn.LeakyReLU, 0.1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "__import__('os').system('true')"}, "activation"),
        ({"anchors": 3}, "anchors as one list"),
        ({"backbone": [[-1, 1, "Convolution", [64]]], "head": []}, "Convolution is not among the blocks"),
        ({"backbone": [[-1, 1, "Conv", ["wide"]]], "head": []}, "Conv does not take"),
        ({"backbone": [[3, 1, "Conv", [64]]]}, "model.0 takes its input from layer 3"),
        ({"head": []}, "does not end in Detect or Segment"),
        ({"head": None}, "as backbone and as head"),
        ({"width_multiple": "0.25"}, "width_multiple is '0.25'"),
        ({"nc": 0}, "nc is 0"),
        ({"ch": 1}, "do not fit"),
    ],
)
def test_yaml_that_makes_no_network(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        YoloV5.from_yaml({**yamls.p5("n", classes=2), **change})


def test_plain_checkpoint_gives_the_network_back(tmp_path: Path) -> None:
    yaml, path, image = yamls.p5("n", classes=2), tmp_path / "plain.pt", torch.rand(1, 3, 64, 64)
    network = YoloV5.from_yaml(yaml).eval()
    randomize(network)
    save_checkpoint(path, network, yaml=yaml, names=["cat", "dog"])

    checkpoint = read_checkpoint(path)
    rebuilt = build_network(checkpoint)

    assert (checkpoint.names, rebuilt.strides) == (("cat", "dog"), (8, 16, 32))
    assert torch.equal(rebuilt.anchors, network.anchors)
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(rebuilt(image), network(image), strict=True))
    torch.load(path, weights_only=True)


def test_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    yaml, path = yamls.p5("n", classes=2), tmp_path / "plain.pt"
    network = YoloV5.from_yaml(yaml)
    network.model[2].cv1 = blocks.Conv(32, 8)
    save_checkpoint(path, network, yaml=yaml, names=["cat", "dog"])
    with pytest.raises(ModelError, match=r"plain\.pt: model\.2\.cv1\.\w+: the stored model\.2\.cv1"):
        build_network(read_checkpoint(path))


def test_block_that_is_not_known_is_named(tmp_path: Path) -> None:
    class Mine(blocks.C3):
        pass

    yaml, path = yamls.p5("n", classes=2), tmp_path / "best.pt"
    network = YoloV5.from_yaml(yaml)
    network.model[2] = Mine(32, 32)
    pickled_checkpoint(network, yaml, path)
    with pytest.raises(ModelError, match=r"best\.pt: model\.2 is a models\.common\.Mine, which is no block of"):
        build_network(read_checkpoint(path))
