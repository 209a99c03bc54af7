"""A project with a toy model, whose gate takes a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SIZE", "TOY", "Project"]

TOY = """
import torch
from torch import nn


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(32, 4)

    def forward(self, image):
        hidden = self.relu(self.second(self.relu(self.first(image))))
        return self.head(torch.flatten(self.pool(hidden), 1))


def model():
    torch.manual_seed(0)
    return Toy(), torch.rand(1, 3, 8, 8)


def data():
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model()[0].eval()(images).argmax(1)
    return list(zip(images, labels.tolist()))


def no_data():
    return []
"""

MODEL = """
[models.{name}]
loader = "factory"
factory = "toy:model"

[models.{name}.data]
format = "factory"
calibration = {{ factory = "toy:data", num_samples = 8 }}
evaluation = {{ factory = "toy:data" }}

[models.{name}.timing]
warmup_rounds = 1
max_seconds = 30
"""

SIZE = "[models.toy.thresholds.size_reduction]\nlower_bound = 0.1\n"


class Project:
    """A folder with `toy.py`, which has a classifier of four classes and its data, and a `qgate.toml` that gates it.

    A prediction is the raw output, shape (1, 4), and a target the index of a class; the limit, on the size, holds.
    """

    def __init__(self, root: Path, *, written: bool = False) -> None:
        self.root = root
        if not written:
            self.write("toy.py", TOY)
            self.configure(SIZE)

    def write(self, name: str, text: str) -> None:
        """Write a file below the folder."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def text(self, name: str) -> str:
        """Read a file."""
        return (self.root / name).read_text(encoding="utf-8")

    def configure(self, *tables: str, models: tuple[str, ...] = ("toy",), name: str = "qgate.toml") -> None:
        """Write a configuration of these models; `tables` are more TOML of `models.toy`, and `toy` is each model."""
        parts = [MODEL.format(name=model) + "\n".join(tables).replace("toy", model) for model in models]
        self.write(name, "\n".join(["schema_version = 1", *parts]))

    def results(self) -> Any:
        """Read what the last run saved."""
        return json.loads(self.text(".qgate/results.json"))
