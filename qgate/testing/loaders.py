"""The rules of loaders."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qgate.engine.digest import digest
from qgate.protocols import LoadedModel
from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver
from qgate.quantization.prepare import Recipe, prepare
from qgate.testing.conformance import Conformance, expect, expect_one_line, rule, spoilt_paths
from qgate.testing.networks import flat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qgate.protocols import Loader

__all__ = ["LoaderConformance"]


class LoaderConformance(Conformance):
    """A loader gives a float32 network that can be quantized, with the way of a sample into it and out of it.

    A subclass sets `loader`, `options` and `inputs`; and where FX cannot trace all of the network, `non_traceable`, as
    in `qgate.toml`.
    """

    kind = "loader"
    loader: type[Loader]
    non_traceable: tuple[str, ...] = ()

    def options(self, folder: Path) -> Any:
        """Give options that load a small model; what files it needs can be written to `folder`."""
        raise NotImplementedError(f"{type(self).__name__} needs `options`: what the loader is to load")

    def inputs(self) -> Sequence[Any]:
        """Give two inputs of samples or more, as a data set gives them to `preprocess`."""
        raise NotImplementedError(f"{type(self).__name__} needs `inputs`: what `preprocess` takes")

    @pytest.fixture
    def loaded(self, tmp_path: Path) -> LoadedModel:
        """Load the model."""
        return self.loader().load(self.options(tmp_path))

    @rule
    def test_it_says_what_it_is(self) -> None:
        """The class has a name, and Options that qgate.toml can give."""
        self.expect_name()
        self.expect_options()

    @rule
    def test_the_network_is_in_eval_mode(self, loaded: LoadedModel) -> None:
        """The network and all its modules are in eval mode."""
        expect(isinstance(loaded, LoadedModel), "a qgate.LoadedModel", type(loaded).__name__)
        training = [name or "the network" for name, module in loaded.module.named_modules() if module.training]
        expect(not training, "no module in training mode", training[:5])

    @rule
    def test_the_network_is_float32(self, loaded: LoadedModel) -> None:
        """Weights and buffers that are not integers are float32."""
        state = loaded.module.state_dict().items()
        others = [f"{name}: {v.dtype}" for name, v in state if v.is_floating_point() and v.dtype != torch.float32]
        expect(not others, "float32 only", others[:5])

    @rule
    def test_example_inputs_fit(self, loaded: LoadedModel) -> None:
        """The network takes the example inputs, a tuple of tensors."""
        given = loaded.example_inputs
        tensors = isinstance(given, tuple) and all(isinstance(value, torch.Tensor) for value in given)
        expect(tensors, "a tuple of tensors as `example_inputs`", type(given).__name__)
        output = _run(loaded, given)
        expect(flat(output).numel() > 0, "an output that holds something", output)

    @rule
    def test_fx_can_trace_it(self, loaded: LoadedModel) -> None:
        """FX can trace the network."""
        recipe = Recipe(MinMaxObserver, PerChannelMinMaxObserver, reduce_range=False, non_traceable=self.non_traceable)
        traced = prepare(loaded.module, recipe, FbgemmBackend().backend_config(), loaded.example_inputs)
        given, wanted = _run(loaded, loaded.example_inputs, traced), _run(loaded, loaded.example_inputs)
        spread = flat(wanted).std(correction=0) + flat(wanted).abs().mean()
        error = float((flat(given) - flat(wanted)).abs().max())
        expect(error <= 1e-3 * spread, "the results of the network from its trace", f"a difference of {error:.3g}")

    @rule
    def test_preprocess_makes_a_batch_of_one(self, loaded: LoadedModel) -> None:
        """Preprocess gives a batch of one that looks like the example inputs."""
        for sample in self.inputs():
            inputs, _ = loaded.preprocess(sample)
            expect(isinstance(inputs, tuple), "a tuple of inputs, and a context", type(inputs).__name__)
            given = [(value.dtype, value.ndim) for value in inputs]
            wanted = [(value.dtype, value.ndim) for value in loaded.example_inputs]
            expect(given == wanted, f"types and dimensions {wanted}", given)
            sizes = [len(value) for value in inputs]
            expect(set(sizes) == {1}, "a batch of one in each input", sizes)

    @rule
    def test_preprocess_repeats(self, loaded: LoadedModel) -> None:
        """Preprocess gives the same for the same input, and leaves it as it is."""
        for sample in self.inputs():
            before = digest(sample)
            first = digest(loaded.preprocess(sample)[0])
            expect(digest(sample) == before, "an input that stays as it is", "a changed one")
            expect(digest(loaded.preprocess(sample)[0]) == first, "the same tensors again", "others")

    @rule
    def test_postprocess_repeats(self, loaded: LoadedModel) -> None:
        """Postprocess gives the same prediction for the same output."""
        for sample in self.inputs():
            inputs, context = loaded.preprocess(sample)
            output = _run(loaded, inputs)
            first = digest(loaded.postprocess(copy.deepcopy(output), context))
            again = digest(loaded.postprocess(copy.deepcopy(output), context))
            expect(again == first, "the same prediction again", "another")

    @rule
    def test_inputs_are_told_apart(self, loaded: LoadedModel) -> None:
        """The network tells the inputs of this test apart."""
        outputs = {digest(_run(loaded, loaded.preprocess(sample)[0])) for sample in self.inputs()}
        expect(len(outputs) > 1, f"outputs that differ for {len(self.inputs())} inputs", f"{len(outputs)} output")

    @rule
    def test_bytes_are_bytes(self, loaded: LoadedModel) -> None:
        """Where there is a `byte_scale`, the network's input is that times 0 to 255."""
        if loaded.byte_scale is None:
            pytest.skip("the loader gives no `byte_scale`")
        for sample in self.inputs():
            (batch,), _ = loaded.preprocess(sample)
            steps = batch.double() / loaded.byte_scale
            bytes_ = steps.round().clamp(0, 255)
            expected = f"whole numbers from 0 to 255, times {loaded.byte_scale}"
            expect((steps - bytes_).abs().max() < 1e-3, expected, batch)

    @rule
    def test_what_travels_in_the_artifact(self, loaded: LoadedModel) -> None:
        """Class names are distinct strings, and the description of the input is JSON."""
        names = loaded.class_names
        strings = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        expect(strings and len(set(names)) == len(names), "a tuple of distinct strings as `class_names`", names)
        json.dumps(dict(loaded.input_description), allow_nan=False)

    @rule
    def test_loading_repeats(self, tmp_path: Path) -> None:
        """The same options load the same weights."""
        options = self.options(tmp_path)
        first, again = (self.loader().load(options) for _ in range(2))
        same = digest(dict(first.module.state_dict())) == digest(dict(again.module.state_dict()))
        expect(same, "the same weights again", "others")
        hashes = first.source_sha256, again.source_sha256
        expect(hashes[0] == hashes[1], f"`source_sha256` {hashes[0]} again", hashes[1])

    @rule
    def test_errors_are_one_line(self, tmp_path: Path) -> None:
        """A file that is missing or damaged is an error of one line."""
        situations = list(spoilt_paths(self.options(tmp_path), tmp_path / "spoilt"))
        if not situations:
            pytest.skip("the options name no file")
        for situation, options in situations:
            expect_one_line(lambda options=options: self.loader().load(options), situation)  # type: ignore[misc]  # its default


def _run(loaded: LoadedModel, inputs: tuple[torch.Tensor, ...], module: torch.nn.Module | None = None) -> Any:
    with torch.no_grad():
        return (module or loaded.module)(*(value.clone() for value in inputs))
