"""The YOLOv5 network: layers, and which layer reads which."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qgate.errors import ModelError
from qgate_yolov5 import blocks
from qgate_yolov5.architecture import LayerBuilder, absolute_source, read_activation, read_number, read_rows
from qgate_yolov5.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from qgate_yolov5.architecture import Source
    from qgate_yolov5.checkpoint import Checkpoint

# A multiple of every stride there is (the P7 networks' largest is 128).
_PROBE_SIZE = 256


class YoloV5(nn.Module):
    """A YOLOv5 network of detection or segmentation, up to the raw maps of its head.

    Maps a float image batch (N, 3, H, W), RGB in [0, 1], H and W multiples of the largest stride, to one raw map
    a level, (N, anchors * (5 + classes + nm), H / stride, W / stride); `decoding.decode` makes boxes of them. A network
    of segmentation has `nm` mask coefficients an anchor, and gives prototypes of masks behind the maps, (N, nm, H / s,
    W / s), where s is half the finest stride.

    `model` are the layers; `sources` says for each where its input comes from: an absolute layer number, -1 for
    the image, or several of these. `anchors` has shape (levels, anchors, 2), in units of the level's stride.
    """

    def __init__(
        self, layers: Sequence[nn.Module], sources: Sequence[Source], anchors: Tensor, strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.sources = tuple(sources)
        self.anchors = anchors
        self.strides = tuple(strides)
        self._needed_later = {
            one for index, source in enumerate(sources) for one in _as_tuple(source) if one != index - 1
        }

    @classmethod
    def from_yaml(cls, yaml: Mapping[str, Any], num_classes: int | None = None) -> Self:
        """Build an untrained network, in training mode, from the dict of a YOLOv5 yaml file.

        `num_classes` defaults to the yaml's `nc`. The yaml's anchors are in pixels. Raises `ModelError`.
        """
        pixels = _yaml_anchors(yaml)
        classes = num_classes or read_number(yaml, "nc", 0)
        builder, rows = LayerBuilder(yaml, pixels.shape[1], classes), read_rows(yaml)
        network = cls([builder.add(row) for row in rows], [row.source for row in rows], pixels, ())
        _check_head(network, classes)
        if "activation" in yaml:
            network.set_activation(read_activation(str(yaml["activation"])))
        network.strides = network.measure_strides()
        network.anchors = pixels / torch.tensor(network.strides).view(-1, 1, 1)
        return network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Give the raw maps of the levels, the finest first, and prototypes where there are some."""
        output: Any = image
        kept: dict[int, Any] = {-1: image}
        for index, (layer, source) in enumerate(zip(self.model, self.sources, strict=True)):
            inputs = [output if one == index - 1 else kept[one] for one in _as_tuple(source)]
            output = layer(inputs if isinstance(source, tuple) else inputs[0])
            if index in self._needed_later:
                kept[index] = output
        return output  # type: ignore[no-any-return]

    def set_activation(self, activation: nn.Module) -> None:
        """Use a copy of `activation` in every `Conv` that has one."""
        for module in self.modules():
            if isinstance(module, blocks.Conv) and not isinstance(module.act, nn.Identity):
                module.act = copy.deepcopy(activation)

    @property
    def num_coefficients(self) -> int:
        """Count the mask coefficients an anchor; 0 in a network of detection."""
        head: Any = self.model[-1]
        return int(head.nm)

    def measure_strides(self) -> tuple[int, ...]:
        """Measure how much each level shrinks an image. Raises `ModelError` where layers do not fit each other."""
        outputs, levels = self._probe(), len(self.anchors)
        strides = tuple(_PROBE_SIZE // one.shape[-1] for one in outputs[:levels])
        prototypes = [tuple(one.shape) for one in outputs[levels:]]
        side = 2 * _PROBE_SIZE // strides[0]
        expected = [(1, self.num_coefficients, side, side)] if self.num_coefficients else []
        if prototypes != expected:
            raise ModelError(f"model.{len(self.model) - 1} gives prototypes {prototypes}; expected {expected}")
        return strides

    def _probe(self) -> tuple[Tensor, ...]:
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                return self(torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE))  # type: ignore[no-any-return]
        except Exception as error:  # layers that do not fit may raise anything
            raise ModelError(f"the layers of the network do not fit each other ({error})") from error
        finally:
            self.train(was_training)


def build_network(checkpoint: Checkpoint) -> YoloV5:
    """Rebuild the trained network of a checkpoint: float32, in eval mode, batch normalization unfused.

    Raises `ModelError` that names the file and the module that is unknown, or that does not fit its tensors.
    """
    try:
        network = _untrained(checkpoint)
        _check_head(network, len(checkpoint.names))
        _load_state(network, checkpoint.state_dict)
        _check_strides(network)
    except ModelError as error:
        raise ModelError(error.message, path=checkpoint.path) from error
    return network.eval()


def _untrained(checkpoint: Checkpoint) -> YoloV5:
    if checkpoint.layers is None:
        network = YoloV5.from_yaml(checkpoint.yaml, len(checkpoint.names))
        network.anchors, network.strides = checkpoint.anchors, checkpoint.strides
        return network
    layers = [rebuild(layer, f"model.{index}") for index, layer in enumerate(checkpoint.layers)]
    sources = [absolute_source(layer.get("f"), index) for index, layer in enumerate(checkpoint.layers)]
    return YoloV5(layers, sources, checkpoint.anchors, checkpoint.strides)


def _check_head(network: YoloV5, num_classes: int) -> None:
    """Check that the network ends in a head of as many levels and outputs as anchors and classes ask for."""
    levels, num_anchors, _ = network.anchors.shape
    head = network.model[-1] if len(network.model) else None
    if not isinstance(head, blocks.Detect):
        raise ModelError("the network does not end in Detect or Segment; expected a YOLOv5 network of either")
    outputs = [getattr(conv, "out_channels", None) for conv in head.m.children()]
    expected = [num_anchors * (5 + num_classes + head.nm)] * levels
    if outputs != expected:
        raise ModelError(
            f"model.{len(network.model) - 1}.m has {outputs} outputs; expected {expected} for {num_classes} classes"
            f"{f', {head.nm} mask coefficients' if head.nm else ''} and {num_anchors} anchors a level"
        )


def _check_strides(network: YoloV5) -> None:
    measured = network.measure_strides()
    if measured != network.strides:
        raise ModelError(f"strides {network.strides} are stored, but the network's are {measured}")


def _load_state(network: YoloV5, stored: Mapping[str, Tensor]) -> None:
    """Fill in the tensors, all of them and no other."""
    own = network.state_dict()
    for name in sorted(own.keys() | stored.keys()):
        place = name.rpartition(".")[0] or name
        if name not in stored:
            raise ModelError(f"{place}: no tensor {name} is stored, but its hyper-parameters ask for one")
        if name not in own:
            raise ModelError(f"{place}: a tensor {name} is stored, but the network has no place for it")
        if own[name].shape != stored[name].shape:
            shapes = f"{tuple(stored[name].shape)}; expected {tuple(own[name].shape)}"
            raise ModelError(f"{place}: the stored {name} has shape {shapes}")
    network.load_state_dict(dict(stored), assign=True)
    network.requires_grad_(True)


def _yaml_anchors(yaml: Mapping[str, Any]) -> Tensor:
    """Read a yaml's anchors, a list of width and height in pixels a level: (levels, anchors, 2)."""
    try:
        return torch.tensor(yaml["anchors"], dtype=torch.float32).view(len(yaml["anchors"]), -1, 2)
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise ModelError("yaml: expected anchors as one list of widths and heights in pixels a level") from None


def _as_tuple(source: Source) -> tuple[int, ...]:
    return source if isinstance(source, tuple) else (source,)
