"""Scenes to segment: coloured discs, squares and triangles on a grey ground, one over another."""

import cv2
import numpy as np

from qgate_segmentation.label_map import NO_CLASS

SIZE = 64
DISC, SQUARE, TRIANGLE = 1, 2, 3  # 0 is the background


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image, uint8 RGB (64, 64, 3), and its mask, uint8 (64, 64); outlines are not labelled."""
    image = np.full((SIZE, SIZE, 3), rng.integers(60, 200), np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(2, 6)):
        label = int(rng.integers(DISC, TRIANGLE + 1))
        outline = corners(label, rng)
        cv2.fillPoly(image, [outline], rng.integers(0, 256, 3).tolist())
        cv2.fillPoly(mask, [outline], label)
        cv2.polylines(mask, [outline], isClosed=True, color=NO_CLASS)
    noisy = cv2.blur(image, (2, 2)) + rng.normal(0, 6, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


def corners(label: int, rng: np.random.Generator) -> np.ndarray:
    """Give the outline of a shape, turned by any angle: int32 (corners, 2)."""
    count = {DISC: 24, SQUARE: 4, TRIANGLE: 3}[label]
    angles = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count
    centre, radius = rng.uniform(8, SIZE - 8, 2), rng.uniform(9, 16)
    return np.int32(centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
