"""Backends with one fault each, and the rule that it breaks."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.ao.quantization.backend_config import get_native_backend_config

from qgate.testing import BackendConformance

if TYPE_CHECKING:
    from collections.abc import Iterator


class Emulated:
    """Runs the reference graph as it is; without a fault."""

    name = "emulated"

    def is_available(self):
        return None

    def backend_config(self):
        return get_native_backend_config()

    def needs_reduced_range(self):
        return False

    def lower(self, reference, example_inputs):
        return Faulty(copy.deepcopy(reference), self.run)

    def run(self, module, x):
        return module.graph_module(x)


class Faulty(nn.Module):
    def __init__(self, graph_module, run):
        super().__init__()
        self.graph_module, self.run = graph_module, run

    def forward(self, x):
        return self.run(self, x)


class Suite(BackendConformance):
    backend = Emulated

    @pytest.fixture(autouse=True)
    def _engine(self) -> Iterator[None]:
        former = torch.backends.quantized.engine
        yield
        torch.backends.quantized.engine = former


class ManyReasons(Emulated):
    def is_available(self):
        return "no compiler\nno kernels"


class OffByTwoSteps(Emulated):
    def run(self, module, x):
        y = module.graph_module(x)
        return y + 0.04 * y.std() if isinstance(y, torch.Tensor) else y


class WrongWhereDeep(Emulated):
    def lower(self, reference, example_inputs):
        return super().lower(reference, example_inputs)

    def run(self, module, x):
        y = module.graph_module(x)
        layers = [node for node in module.graph_module.graph.nodes if node.op == "call_module"]
        return 1.2 * y if len(layers) > 1 and isinstance(y, torch.Tensor) else y


class ChangesTheReference(Emulated):
    def lower(self, reference, example_inputs):
        with torch.no_grad():
            for name, value in reference.state_dict().items():
                if name.endswith("bias"):
                    value.add_(1e-4)
        return super().lower(reference, example_inputs)


class RemembersTheLastInput(Emulated):
    def run(self, module, x):
        last, module.last = getattr(module, "last", None), x.clone()
        y = module.graph_module(x)
        again = last is not None and torch.equal(last, x)
        return y + 1e-6 if again and isinstance(y, torch.Tensor) else y


class FitsOneBatch(Emulated):
    def lower(self, reference, example_inputs):
        lowered = super().lower(reference, example_inputs)
        lowered.batch = len(example_inputs[0])
        return lowered

    def run(self, module, x):
        y = module.graph_module(x)
        return y if len(x) == module.batch else 0.8 * y


class HandsOverByItself(Emulated):
    def run(self, module, x):
        module.x = x
        time.sleep(0.002)
        return module.graph_module(module.x)


class OverwritesItsInput(Emulated):
    def run(self, module, x):
        y = module.graph_module(x)
        x.zero_()
        return y


class SwitchesTheEngine(Emulated):
    def lower(self, reference, example_inputs):
        former = torch.backends.quantized.engine
        torch.backends.quantized.engine = "onednn" if former != "onednn" else "fbgemm"
        return super().lower(reference, example_inputs)


class CalibratesOnTheExample(Emulated):
    def lower(self, reference, example_inputs):
        lowered = super().lower(reference, example_inputs)
        lowered.offset = 1e-4 * float(example_inputs[0].mean())
        return lowered

    def run(self, module, x):
        y = module.graph_module(x)
        return y + module.offset if isinstance(y, torch.Tensor) else y


FAULTS = {
    ManyReasons: "test_it_says_what_it_is",
    OffByTwoSteps: "test_a_layer_is_within_a_step",
    WrongWhereDeep: "test_a_network_is_near",
    ChangesTheReference: "test_the_reference_graph_stays",
    RemembersTheLastInput: "test_results_repeat",
    FitsOneBatch: "test_any_batch",
    HandsOverByItself: "test_threads_do_not_meet",
    OverwritesItsInput: "test_inputs_stay",
    SwitchesTheEngine: "test_torch_stays",
    CalibratesOnTheExample: "test_saved_and_loaded",
}
