"""Loaders with one fault each, and the rule that it breaks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from qgate import LoadedModel
from qgate.errors import ModelError
from qgate.testing import LoaderConformance

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Options:
    weights: Path


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


class Weights:
    """Loads weights of one layer, of images in 0 to 1; without a fault."""

    name = "weights"
    Options = Options

    def load(self, options):
        module = network().eval()
        try:
            module.load_state_dict(torch.load(options.weights, weights_only=True))
        except Exception as error:
            raise ModelError("holds no weights", path=options.weights) from error
        example = torch.zeros(1, 3, 8, 8)
        return self.changed(LoadedModel(module, (example,), self.preprocess, byte_scale=1 / 255))

    def preprocess(self, image):
        return (image.unsqueeze(0).float() / 255,), None

    def changed(self, loaded):
        return loaded


class Suite(LoaderConformance):
    loader = Weights

    def options(self, folder):
        torch.save(network().state_dict(), folder / "net.pt")
        return Options(folder / "net.pt")

    def inputs(self):
        return list(torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)))


class OptionsThatThaw(Weights):
    @dataclass
    class Options:
        weights: Path


class InTraining(Weights):
    def changed(self, loaded):
        loaded.module.train()
        return loaded


class InDoublePrecision(Weights):
    def changed(self, loaded):
        loaded.module.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        return loaded


class OneExample(Weights):
    def changed(self, loaded):
        return replace(loaded, example_inputs=[*loaded.example_inputs])


class Branching(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) if x.mean() < 1e9 else x


class BranchesOnData(Weights):
    def changed(self, loaded):
        return replace(loaded, module=Branching(loaded.module).eval())


class BatchOfTwo(Weights):
    def preprocess(self, image):
        (batch,), context = super().preprocess(image)
        return (batch.repeat(2, 1, 1, 1),), context


class ChangesItsInput(Weights):
    def preprocess(self, image):
        result = super().preprocess(image)
        image.fill_(0)
        return result


class CountsPredictions(Weights):
    def changed(self, loaded):
        count = itertools.count()
        return replace(loaded, postprocess=lambda output, context: (output, next(count)))


class SeesNothing(Weights):
    def preprocess(self, image):
        return super().preprocess(0 * image)


class NormalizesBytes(Weights):
    def preprocess(self, image):
        (batch,), context = super().preprocess(image)
        return ((batch - 0.45) / 0.22,), context


class OneNameTwice(Weights):
    def changed(self, loaded):
        return replace(loaded, class_names=("cat", "dog", "cat"))


class OtherWeightsEachTime(Weights):
    loads = itertools.count(1)

    def changed(self, loaded):
        loaded.module[0].bias.data.fill_(next(self.loads))
        return loaded


class ManyErrors(Weights):
    def load(self, options):
        torch.load(options.weights, weights_only=True)
        return super().load(options)


FAULTS = {
    OptionsThatThaw: "test_it_says_what_it_is",
    InTraining: "test_the_network_is_in_eval_mode",
    InDoublePrecision: "test_the_network_is_float32",
    OneExample: "test_example_inputs_fit",
    BranchesOnData: "test_fx_can_trace_it",
    BatchOfTwo: "test_preprocess_makes_a_batch_of_one",
    ChangesItsInput: "test_preprocess_repeats",
    CountsPredictions: "test_postprocess_repeats",
    SeesNothing: "test_inputs_are_told_apart",
    NormalizesBytes: "test_bytes_are_bytes",
    OneNameTwice: "test_what_travels_in_the_artifact",
    OtherWeightsEachTime: "test_loading_repeats",
    ManyErrors: "test_errors_are_one_line",
}
