"""The networks that YOLOv5 publishes, as their yaml files give them."""

from typing import Any

P5_ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
P6_ANCHORS = [
    [19, 27, 44, 40, 38, 94],
    [96, 68, 86, 152, 180, 137],
    [140, 301, 303, 264, 238, 542],
    [436, 615, 739, 380, 925, 792],
]
MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
STEM = [-1, 1, "Conv", [64, 6, 2, 2]]
SPPF = [[-1, 1, "SPPF", [1024, 5]]]
DETECT = ["Detect", ["nc", "anchors"]]
SEGMENT = ["Segment", ["nc", "anchors", 32, 256]]  # prototypes, and channels before them


def p5(  # noqa: PLR0913 - what the published files differ in
    size: str, *, classes: int = 80, block: str = "C3", stem: Any = None, deepest: Any = None, last: Any = DETECT
) -> dict[str, Any]:
    """Three levels; v6.0 where nothing else is said. `deepest` are the last layers of the backbone."""
    backbone = [
        stem or STEM,
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, block, [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 6, block, [256]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 9, block, [512]],
        [-1, 1, "Conv", [1024, 3, 2]],
        *(deepest or [[-1, 3, block, [1024]], *SPPF]),
    ]
    down = "GhostConv" if block == "C3Ghost" else "Conv"
    rest = [] if block == "C3Ghost" else [False]
    head = [
        [-1, 1, down, [512, 1, 1]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 6], 1, "Concat", [1]],
        [-1, 3, block, [512, *rest]],
        [-1, 1, down, [256, 1, 1]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 3, block, [256, *rest]],
        [-1, 1, down, [256, 3, 2]],
        [[-1, 14], 1, "Concat", [1]],
        [-1, 3, block, [512, *rest]],
        [-1, 1, down, [512, 3, 2]],
        [[-1, 10], 1, "Concat", [1]],
        [-1, 3, block, [1024, *rest]],
        [[17, 20, 23], 1, *last],
    ]
    return _scaled(size, nc=classes, anchors=P5_ANCHORS, backbone=backbone, head=head)


def p6(size: str, *, classes: int = 80) -> dict[str, Any]:
    """Four levels, v6.0."""
    backbone = [
        STEM,
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C3", [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 6, "C3", [256]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 9, "C3", [512]],
        [-1, 1, "Conv", [768, 3, 2]],
        [-1, 3, "C3", [768]],
        [-1, 1, "Conv", [1024, 3, 2]],
        [-1, 3, "C3", [1024]],
        *SPPF,
    ]
    head: list[Any] = []
    for channels, skip in ((768, 8), (512, 6), (256, 4)):
        head += [
            [-1, 1, "Conv", [channels, 1, 1]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, skip], 1, "Concat", [1]],
            [-1, 3, "C3", [channels, False]],
        ]
    for channels, skip, wider in ((256, 20, 512), (512, 16, 768), (768, 12, 1024)):
        head += [
            [-1, 1, "Conv", [channels, 3, 2]],
            [[-1, skip], 1, "Concat", [1]],
            [-1, 3, "C3", [wider, False]],
        ]
    head.append([[23, 26, 29, 32], 1, "Detect", ["nc", "anchors"]])
    return _scaled(size, nc=classes, anchors=P6_ANCHORS, backbone=backbone, head=head)


def _scaled(size: str, **yaml: Any) -> dict[str, Any]:
    depth, width = MULTIPLES[size]
    return {**yaml, "depth_multiple": depth, "width_multiple": width}


V5_STEM = [-1, 1, "Focus", [64, 3]]
V5_DEEPEST = [[-1, 1, "SPP", [1024, [5, 9, 13]]], [-1, 3, "C3", [1024, False]]]
TRANSFORMER_DEEPEST = [[-1, 3, "C3TR", [1024]], *SPPF]
C3SPP_DEEPEST = [[-1, 1, "C3SPP", [1024, [5, 9, 13]]], *SPPF]
DEPTHWISE_STEM = [-1, 1, "DWConv", [64, 3, 2]]
