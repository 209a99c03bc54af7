"""The images that int8 does worst on, with what both arms and the labels say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from qgate.panels import Gallery, Mark, Picture
from qgate_detection.agreement import MIN_OVERLAP, MIN_SCORE, MIN_SCORE_OF_COUNTERPART
from qgate_detection.boxes import Detections, Targets
from qgate_detection.matching import match, pool_boxes
from qgate_detection.metrics import ALL_AREAS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from qgate.panels import Side, State
    from qgate.protocols import Sample

    Bools = NDArray[np.bool_]

NUM_PICTURES = 20

_LONGER_SIDE = 640
_MAX_BYTES = 150_000  # of one picture, if it can be
_QUALITIES = (80, 65, 50, 35)
_CHANNELS = 3
_NAMED = 3
_TOGETHER = 256  # images


@dataclass(frozen=True, eq=False)
class Seen:
    """What counts of one image: detections in the order in which `pool_boxes` has them, and targets.

    Without labels, what float32 detects is the target.
    """

    sample_id: str
    float32: Detections
    int8: Detections
    targets: Targets
    is_labelled: bool

    @classmethod
    def of(cls, sample_id: str, float32: Detections, int8: Detections, target: Any) -> Seen:
        """Keep the detections that may be shown, or may be the counterpart of one."""
        float32, int8 = (_ordered(each) for each in (float32, int8))
        is_labelled = isinstance(target, Targets)
        return cls(sample_id, float32, int8, target if is_labelled else _shown(float32).as_targets(), is_labelled)


class WorstImages:
    """Keeps the images with the greatest loss of those that it is shown, in the data set's order.

    An arm's merit is the sum of the scores of detections that find a target, minus that of those which find none; the
    loss is float32's merit minus int8's.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._count = 0
        self.is_labelled = True  # every image so far
        self._waiting: list[Seen] = []  # judged together, which is faster than one by one
        self._worst: list[_Lost] = []

    def __len__(self) -> int:
        return self._count

    def add(self, seen: Seen) -> None:
        """Take in the next image."""
        self._count += 1
        self.is_labelled &= seen.is_labelled
        self._waiting.append(seen)
        if len(self._waiting) == _TOGETHER:
            self._judge()

    def gallery(self, read: Callable[[int], Sample]) -> Gallery:
        """Give those that there is a picture of, each with its marks."""
        self._judge()
        pictures: list[Picture] = []
        for each in self._worst:
            pixels = read(each.index).input
            if _is_picture(pixels):
                marks = tuple(_marks(each.seen, each.found_targets, self._class_names, pixels))
                pictures.append(_picture(each.seen.sample_id, pixels, marks, each.loss))
        return Gallery("Images that lost most", _about(is_labelled=self.is_labelled), tuple(pictures))

    def _judge(self) -> None:
        if not self._waiting:
            return
        float32 = _judged([(_shown(each.float32), each.targets) for each in self._waiting])
        int8 = _judged([(_shown(each.int8), each.targets) for each in self._waiting])
        first = self._count - len(self._waiting)
        for index, (seen, one, other) in enumerate(zip(self._waiting, float32, int8, strict=True), start=first):
            loss = one.merit(_shown(seen.float32)) - other.merit(_shown(seen.int8))
            if loss > 0:
                self._worst.append(_Lost(loss, index, seen, (one.found_targets, other.found_targets)))
        self._worst = sorted(self._worst, key=lambda each: -each.loss)[:NUM_PICTURES]
        self._waiting = []


@dataclass(frozen=True, eq=False)
class _Lost:
    """What an image lost, its place in the data set, and which targets float32 and int8 find."""

    loss: float
    index: int
    seen: Seen
    found_targets: tuple[Bools, Bools]


@dataclass(frozen=True, eq=False)
class _Judged:
    """What became of an image's detections and targets.

    `target` (N,) is the index of the target that a detection takes, or -1; `ignored` (N,) marks those that count for
    nothing; `found_targets` (M,) the targets that are taken.
    """

    target: NDArray[np.int64]
    ignored: Bools
    found_targets: Bools

    @property
    def found(self) -> Bools:
        """Mark the detections that find a target."""
        return (self.target >= 0) & ~self.ignored

    def merit(self, detections: Detections) -> float:
        """Add the scores of what is right, and subtract those of what is wrong."""
        signs = self.found.astype(np.float64) - (~self.found & ~self.ignored)
        return float(signs @ detections.scores)


def _judged(images: Sequence[tuple[Detections, Targets]]) -> list[_Judged]:
    """Match every image's detections, which are in the order of the pool, with its targets."""
    pool = pool_boxes(images, min_overlap=MIN_OVERLAP)
    matches = match(pool, np.array([MIN_OVERLAP]), ALL_AREAS)
    taken_by = np.append(pool.pair_target, -1)[matches.pair[0]]  # -1, unmatched: the appended one
    found_targets = np.zeros(len(pool.target_image), dtype=bool)
    found_targets[taken_by[taken_by >= 0]] = True
    order = np.argsort(pool.image, kind="stable")
    bounds = np.cumsum([0, *(len(detections) for detections, _ in images)])
    target_bounds = np.cumsum([0, *(len(targets) for _, targets in images)])
    judged = []
    for index in range(len(images)):
        of_image = order[bounds[index] : bounds[index + 1]]
        begin, end = target_bounds[index], target_bounds[index + 1]
        target = np.maximum(taken_by[of_image] - begin, -1)
        judged.append(_Judged(target, matches.ignored[0][of_image], found_targets[begin:end]))
    return judged


def _marks(
    seen: Seen, found_targets: tuple[Bools, Bools], class_names: Sequence[str], pixels: NDArray[np.uint8]
) -> Iterator[Mark]:
    """Give the marks of one image: targets first, so that detections lie above them."""
    height, width = pixels.shape[:2]
    scale = np.array([width, height, width, height], dtype=np.float64)

    def mark(side: Side, state: State, box: NDArray[Any], index: int, said: str = "") -> Mark:
        name = class_names[index] if class_names else str(index)
        left, top, right, bottom = np.round(np.clip(box / scale, 0, 1), 4).tolist()
        return Mark((left, top, right, bottom), name, side, state, f"{name} {said}".strip())

    if seen.is_labelled:
        real = zip(seen.targets.boxes, seen.targets.classes, seen.targets.crowd, *found_targets, strict=True)
        for box, index, is_crowd, by_float32, by_int8 in real:
            if not is_crowd:
                yield mark("target", _state(bool(by_float32), bool(by_int8)), box, int(index))
    for box, index, ours, theirs in _counterparts(seen.float32, seen.int8):
        said = f"{ours:.2f}" if theirs is None else f"{ours:.2f} → {theirs:.2f}"
        yield mark("float32", "only float32" if theirs is None else "both", box, index, said)
    for box, index, ours, theirs in _counterparts(seen.int8, seen.float32):
        said = f"{ours:.2f}" if theirs is None else f"{theirs:.2f} → {ours:.2f}"
        yield mark("int8", "only int8" if theirs is None else "both", box, index, said)


def _counterparts(ours: Detections, theirs: Detections) -> Iterator[tuple[NDArray[Any], int, float, float | None]]:
    """Give box, class and score of each of our detections, and the score of its counterpart among theirs."""
    shown = _shown(ours)
    (judged,) = _judged([(shown, theirs.as_targets())])
    for box, index, score, other in zip(shown.boxes, shown.classes, shown.scores, judged.target, strict=True):
        yield box, int(index), float(score), float(theirs.scores[other]) if other >= 0 else None


def _state(by_float32: bool, by_int8: bool) -> State:  # two of a kind
    if by_float32:
        return "both" if by_int8 else "only float32"
    return "only int8" if by_int8 else "missed"


def _picture(name: str, pixels: NDArray[np.uint8], marks: tuple[Mark, ...], loss: float) -> Picture:
    content = _encoded(pixels)
    height, width = pixels.shape[:2]
    return Picture(name, _caption(marks, loss), content, "image/webp", width, height, marks)


def _caption(marks: Sequence[Mark], loss: float) -> str:
    """Say what only one arm detects, or else which labels only one finds, and what neither finds."""
    parts = {
        "only float32": _groups(marks, "float32", "only float32"),
        "only int8": _groups(marks, "int8", "only int8"),
        "labels only float32 finds": _groups(marks, "target", "only float32"),
        "labels only int8 finds": _groups(marks, "target", "only int8"),
    }
    said = [f"{label}: {_listed(names)}" for label, names in parts.items() if names] or ["only scores and places moved"]
    missed = len(_groups(marks, "target", "missed"))
    neither = [f"{missed} missed by both"] if missed else []
    return f"{'; '.join([*said, *neither])} (loss {loss:.2f})"


def _groups(marks: Sequence[Mark], side: Side, state: State) -> list[str]:
    return [mark.group for mark in marks if (mark.side, mark.state) == (side, state)]


def _listed(names: Sequence[str]) -> str:
    counted = Counter(names).most_common()
    rest = sum(count for _, count in counted[_NAMED:])
    shown = [f"{count} {name}" for name, count in counted[:_NAMED]]
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _about(*, is_labelled: bool) -> str:
    targets = "a label" if is_labelled else "what float32 detects"
    return (
        f"Detections of a score of at least {MIN_SCORE:g}. An image's loss is float32's merit minus int8's: the scores "
        f"of detections that find {targets} at an IoU of {MIN_OVERLAP:g}, minus those of detections that find none."
    )


def _is_picture(pixels: Any) -> bool:
    return (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == _CHANNELS
        and pixels.shape[2] == _CHANNELS
    )


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    """Give an image, RGB uint8 (H, W, 3), as WebP of a size that a page holds twenty of."""
    shrunk = cv2.cvtColor(_shrunk(pixels), cv2.COLOR_RGB2BGR)
    content = b""
    for quality in _QUALITIES:
        content = cv2.imencode(".webp", shrunk, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        if len(content) <= _MAX_BYTES:
            break
    return content


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    ratio = _LONGER_SIDE / max(height, width)
    if ratio >= 1:
        return pixels
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _ordered(detections: Detections) -> Detections:
    """Give what may count, ordered by class, then by falling score."""
    kept = detections.chosen(detections.scores >= MIN_SCORE_OF_COUNTERPART)
    order = np.lexsort((-kept.scores, kept.classes))
    return Detections(kept.boxes[order], kept.scores[order], kept.classes[order])


def _shown(detections: Detections) -> Detections:
    return detections.chosen(detections.scores >= MIN_SCORE)
