"""A second opinion: runs a pickled network from its own wiring and tensors, in float64, with none of qgate's code.

Also writes pickled checkpoints whose classes are `models.yolo.*` and `models.common.*`, as YOLOv5's own code does.
"""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qgate_yolov5.blocks import Block
from qgate_yolov5.network import YoloV5


class _AnyModule(ModuleType):
    """A module that has every class one asks for, each an empty `nn.Module`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (nn.Module,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


@contextlib.contextmanager
def yolov5_classes() -> Iterator[None]:
    """Let pickles name `models.yolo` and `models.common`."""
    names = ("models", "models.yolo", "models.common")
    sys.modules.update({name: _AnyModule(name) for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _disguise(module: nn.Module) -> nn.Module:
    """Give a copy whose blocks are of YOLOv5's classes; to be called within `yolov5_classes`."""
    name = type(module).__name__
    home = sys.modules["models.yolo" if name in {"Detect", "Segment"} else "models.common"]
    cls = getattr(home, name) if isinstance(module, Block) else type(module)
    copy = cls.__new__(cls)
    copy.__dict__.update(module.__dict__)
    copy.__dict__["_buffers"] = dict(module._buffers)
    copy.__dict__["_modules"] = {key: _disguise(child) for key, child in module.named_children()}
    return copy  # type: ignore[no-any-return]


def randomize(network: nn.Module) -> None:
    """Make every tensor matter: statistics and biases other than 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            tensor.uniform_(-0.5, 0.5, generator=generator)


def pickled_checkpoint(
    network: YoloV5, yaml: dict[str, Any], path: pathlib.Path, *, version: str = "7.0", image_size: int = 640
) -> None:
    """Write `network` as YOLOv5's train.py of v5.0, or of v7.0 with all the options that a user's run leaves there."""
    with yolov5_classes():
        model = _model(network, yaml, version)
        document = {"epoch": -1, "best_fitness": np.float64(0.37), "model": model.half(), "ema": None, "updates": None}
        if version == "7.0":
            options = argparse.Namespace(
                weights=pathlib.Path("a.pt"), hyp={"lr0": 0.01}, imgsz=image_size, device=torch.device("cpu")
            )
            document |= {"opt": options, "git": {"branch": None}, "date": "2022-11-22", "fitness": np.array([0.1, 0.2])}
        torch.save(document, path)


def _model(network: YoloV5, yaml: dict[str, Any], version: str) -> nn.Module:
    names = [f"class{index}" for index in range(yaml["nc"])]
    segments = bool(network.num_coefficients)
    name = "Model" if version == "5.0" else "SegmentationModel" if segments else "DetectionModel"
    model = getattr(sys.modules["models.yolo"], name)()
    model.model = _disguise(network.model)
    for index, (layer, source) in enumerate(zip(model.model, network.sources, strict=True)):
        absolute = list(source) if isinstance(source, tuple) else source
        layer.i, layer.f = index, -1 if absolute == index - 1 else absolute
        if isinstance(layer, nn.Upsample) and version == "5.0":
            del layer.recompute_scale_factor
    head = model.model[-1]
    head.nc, head.stride = yaml["nc"], torch.tensor(network.strides).float()
    if segments:
        head.npr, head.detect = 256, forward_of_detect()
    head.register_buffer("anchors", network.anchors)
    if version == "5.0":
        pixels = network.anchors * head.stride.view(-1, 1, 1)
        head.register_buffer("anchor_grid", pixels.view(len(network.strides), 1, -1, 1, 1, 2))
    model.yaml, model.save = yaml, []
    model.names = names if version == "5.0" else dict(enumerate(names))
    return model  # type: ignore[no-any-return]


def forward_of_detect() -> Any:
    """Give the function to which a `Segment` of v7.0 keeps a reference; pickled, it is a call of `getattr`."""

    def forward(self: Any, x: Any) -> Any: ...

    forward.__module__, forward.__qualname__ = "models.yolo", "Detect.forward"
    sys.modules["models.yolo"].Detect.forward = forward
    return forward


def reference_maps(path: pathlib.Path, image: Tensor) -> list[Tensor]:
    """Unpickle a checkpoint that the test trusts, and run it: the raw maps, and prototypes, in float64."""
    with yolov5_classes():
        forward_of_detect()
        model = torch.load(path, weights_only=False)["model"].double()
    outputs: list[Any] = []
    x: Any = image.double()
    for layer in model.model:
        if isinstance(layer.f, list):
            x = [x if source == -1 else outputs[source] for source in layer.f]
        elif layer.f != -1:
            x = outputs[layer.f]
        x = _run(layer, x)
        outputs.append(x)
    return x  # type: ignore[no-any-return]


def _run(module: Any, x: Any) -> Any:
    return _RULES[type(module).__name__](module, x)


def _conv2d(m: Any, x: Tensor) -> Tensor:
    return functional.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)


def _batch_norm(m: Any, x: Tensor) -> Tensor:
    mean, var, weight, bias = (t.view(1, -1, 1, 1) for t in (m.running_mean, m.running_var, m.weight, m.bias))
    return (x - mean) / (var + m.eps).sqrt() * weight + bias


def _csp(m: Any, x: Tensor) -> Tensor:
    both = torch.cat((_run(m.cv3, _run(m.m, _run(m.cv1, x))), _run(m.cv2, x)), 1)
    return _run(m.cv4, _run(m.act, _run(m.bn, both)))  # type: ignore[no-any-return]


def _bottleneck(m: Any, x: Tensor) -> Tensor:
    y = _run(m.cv2, _run(m.cv1, x))
    return x + y if m.add else y  # type: ignore[no-any-return]


def _sppf(m: Any, x: Tensor) -> Tensor:
    maps = [_run(m.cv1, x)]
    maps += [_run(m.m, maps[-1])]
    maps += [_run(m.m, maps[-1])]
    maps += [_run(m.m, maps[-1])]
    return _run(m.cv2, torch.cat(maps, 1))  # type: ignore[no-any-return]


def _spp(m: Any, x: Tensor) -> Tensor:
    x = _run(m.cv1, x)
    return _run(m.cv2, torch.cat([x] + [_run(pool, x) for pool in m.m], 1))  # type: ignore[no-any-return]


def _proto(m: Any, x: Tensor) -> Tensor:
    return _run(m.cv3, _run(m.cv2, _run(m.upsample, _run(m.cv1, x))))  # type: ignore[no-any-return]


def _focus(m: Any, x: Tensor) -> Tensor:
    corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return _run(m.conv, torch.cat(corners, 1))  # type: ignore[no-any-return]


def _ghost(m: Any, x: Tensor) -> Tensor:
    y = _run(m.cv1, x)
    return torch.cat((y, _run(m.cv2, y)), 1)


def _attention(m: Any, x: Tensor) -> Tensor:
    """Multi-head attention over pixels (P, N, C), head by head."""
    queries, keys, values = (
        part @ weight.T + bias
        for part, weight, bias in zip(
            (x @ m.q.weight.T, x @ m.k.weight.T, x @ m.v.weight.T),
            m.ma.in_proj_weight.chunk(3),
            m.ma.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    heads = []
    for q, k, v in zip(*(t.chunk(m.ma.num_heads, 2) for t in (queries, keys, values)), strict=True):
        weights = torch.einsum("pnc,qnc->npq", q, k) / q.shape[2] ** 0.5
        heads.append(torch.einsum("npq,qnc->pnc", weights.softmax(2), v))
    return torch.cat(heads, 2) @ m.ma.out_proj.weight.T + m.ma.out_proj.bias  # type: ignore[no-any-return]


def _transformer_layer(m: Any, x: Tensor) -> Tensor:
    x = _attention(m, x) + x
    return x @ m.fc1.weight.T @ m.fc2.weight.T + x  # type: ignore[no-any-return]


def _transformer(m: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    pixels = x.reshape(n, c, h * w).permute(2, 0, 1)
    pixels = pixels + pixels @ m.linear.weight.T + m.linear.bias
    return _run(m.tr, pixels).permute(1, 2, 0).reshape(n, c, h, w)  # type: ignore[no-any-return]


def _sequence(m: Any, x: Tensor) -> Tensor:
    for part in m:
        x = _run(part, x)
    return x


def _conv(m: Any, x: Tensor) -> Tensor:
    return _run(m.act, _run(m.bn, _run(m.conv, x)))  # type: ignore[no-any-return]


def _c3(m: Any, x: Tensor) -> Tensor:
    return _run(m.cv3, torch.cat((_run(m.m, _run(m.cv1, x)), _run(m.cv2, x)), 1))  # type: ignore[no-any-return]


_RULES: dict[str, Any] = {
    "BatchNorm2d": _batch_norm,
    "Bottleneck": _bottleneck,
    "BottleneckCSP": _csp,
    "C3": _c3,
    "C3Ghost": _c3,
    "C3SPP": _c3,
    "C3TR": _c3,
    "Concat": lambda m, maps: torch.cat(maps, m.d),
    "Conv": _conv,
    "Conv2d": _conv2d,
    "DWConv": _conv,
    "Detect": lambda m, maps: [_conv2d(conv, x) for conv, x in zip(m.m, maps, strict=True)],
    "Focus": _focus,
    "GhostBottleneck": lambda m, x: _run(m.conv, x) + _run(m.shortcut, x),
    "GhostConv": _ghost,
    "Hardswish": lambda m, x: x * (x + 3).clamp(0, 6) / 6,
    "Identity": lambda m, x: x,
    "LeakyReLU": lambda m, x: torch.where(x > 0, x, x * m.negative_slope),
    "MaxPool2d": lambda m, x: functional.max_pool2d(x, m.kernel_size, m.stride, m.padding),
    "Proto": _proto,
    "SPP": _spp,
    "SPPF": _sppf,
    "Segment": lambda m, maps: [*_RULES["Detect"](m, maps), _proto(m.proto, maps[0])],
    "Sequential": _sequence,
    "SiLU": lambda m, x: x / (1 + (-x).exp()),
    "TransformerBlock": _transformer,
    "TransformerLayer": _transformer_layer,
    "Upsample": lambda m, x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
}
