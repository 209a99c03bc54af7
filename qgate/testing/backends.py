"""The rules of backends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pluggy
import pytest
import torch

from qgate import hookimpl, hookspecs
from qgate.engine.artifact import artifact_bytes, load_artifact
from qgate.engine.digest import digest
from qgate.plugins import Registry
from qgate.quantization.codec import encode
from qgate.quantization.prepare import quiet_torch_ao
from qgate.testing.conformance import Conformance, expect, rule
from qgate.testing.networks import LAYERS, NETWORKS, Network, flat, reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qgate.protocols import Backend

__all__ = ["BackendConformance"]

_SEED = 9  # of inputs that calibration has not seen


class BackendConformance(Conformance):
    """A backend runs what the reference graph says, fast, and leaves everything else as it was.

    A subclass sets `backend`. Where `is_available` gives a reason, all rules but the first are skipped with it.
    """

    kind = "backend"
    backend: type[Backend]
    layers: ClassVar[Mapping[str, Network]] = LAYERS
    networks: ClassVar[Mapping[str, Network]] = NETWORKS

    @rule
    def test_it_says_what_it_is(self) -> None:
        """It has a name, and says in one line why it does not run here, or None where it does."""
        backend: Any = self.backend()
        self.expect_name()
        reason = backend.is_available()
        holds = reason is None or (isinstance(reason, str) and len(reason.splitlines()) == 1)
        expect(holds, "None or one line from `is_available`", repr(reason))
        saturates = backend.needs_reduced_range() if reason is None else False
        expect(isinstance(saturates, bool), "a bool from `needs_reduced_range`", repr(saturates))

    @rule
    def test_a_layer_is_within_a_step(self) -> None:
        """A layer's results are within one quantization step of the reference graph's."""
        for name, network in self.layers.items():
            graph = self._reference(network)
            step = _step(graph, network)
            wanted, given = _run(graph, network), _run(self._lower(graph, network), network)
            expect(given.shape == wanted.shape, f"shape {tuple(wanted.shape)} of a {name}", tuple(given.shape))
            error = float((given - wanted).abs().max())
            expect(error <= 1.01 * step, f"at most a step of {step:.4g} from the reference graph, of a {name}", error)

    @rule
    def test_a_network_is_near(self) -> None:
        """A network's results are near the reference graph's: 5% of their spread, as a root mean square."""
        for name, network in self.networks.items():
            graph = self._reference(network)
            wanted, given = _run(graph, network), _run(self._lower(graph, network), network)
            error = float((given - wanted).square().mean().sqrt() / wanted.std())
            expect(error <= 0.05, f"at most 5% from the reference graph of the network {name}", f"{error:.2%}")

    @rule
    def test_the_reference_graph_stays(self) -> None:
        """Lowering leaves the reference graph as it was."""
        for name, network in self._both():
            graph = self._reference(network)
            before, wanted = digest(encode(graph, network.inputs())), _run(graph, network)
            _run(self._lower(graph, network), network)
            same = digest(encode(graph, network.inputs())) == before
            expect(same, f"the graph of {name} unchanged", "other nodes or numbers")
            expect(torch.equal(_run(graph, network), wanted), f"the same results of {name}", "others")

    @rule
    def test_results_repeat(self) -> None:
        """The same graph and input give the same result, bit for bit."""
        for name, network in self._both():
            lowered = self._lower(self._reference(network), network)
            first = _run(lowered, network)
            expect(torch.equal(_run(lowered, network), first), f"the same of {name}, run again", "another result")
            again = _run(self._lower(self._reference(network), network), network)
            expect(torch.equal(again, first), f"the same of {name}, lowered again", "another result")

    @rule
    def test_any_batch(self) -> None:
        """A batch of any size gives what its samples give alone, within a step."""
        for name, network in self.layers.items():
            graph = self._reference(network)
            lowered, step = self._lower(graph, network), _step(graph, network)
            samples = [network.inputs(seed)[0] for seed in range(_SEED, _SEED + 5)]
            for size in (2, 5):
                with torch.no_grad(), quiet_torch_ao():
                    together = flat(lowered(torch.cat(samples[:size])))
                    alone = torch.cat([flat(lowered(sample)) for sample in samples[:size]])
                expect(together.shape == alone.shape, f"{len(alone)} results of {size} samples", len(together))
                error = float((together - alone).abs().max())
                expect(error <= 1.01 * step, f"at most a step of {step:.4g} from each alone, of a {name}", error)

    @rule
    def test_threads_do_not_meet(self) -> None:
        """Calls from several threads at once give what they give one after another."""
        for name, network in self.networks.items():
            lowered = self._lower(self._reference(network), network)
            wanted = [_run(lowered, network, seed) for seed in range(8)]
            with ThreadPoolExecutor(4) as pool:
                given = list(pool.map(lambda seed: _run(lowered, network, seed), range(8)))  # noqa: B023  # ends here
            same = all(map(torch.equal, given, wanted))
            expect(same, f"the results of {name} as one after another", "others")

    @rule
    def test_inputs_stay(self) -> None:
        """Running leaves the inputs as they are."""
        for name, network in self._both():
            lowered = self._lower(self._reference(network), network)
            inputs = tuple(value.clone() for value in network.inputs(_SEED))
            with torch.no_grad():
                lowered(*inputs)
            same = all(map(torch.equal, inputs, network.inputs(_SEED)))
            expect(same, f"the inputs of {name} unchanged", "others")

    @rule
    def test_torch_stays(self) -> None:
        """Lowering and running leave torch's engine and its number of threads as they were."""
        for _, network in self._both():
            graph = self._reference(network)
            before = torch.backends.quantized.engine, torch.get_num_threads()
            _run(self._lower(graph, network), network)
            after = torch.backends.quantized.engine, torch.get_num_threads()
            torch.backends.quantized.engine = before[0]
            torch.set_num_threads(before[1])
            expect(after == before, f"engine and threads {before}", after)

    @rule
    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        """An artifact that is saved and loaded again gives the same results, bit for bit."""
        for name, network in self._both():
            graph = self._reference(network)
            path = tmp_path / f"{name}.pt"
            path.write_bytes(artifact_bytes(graph, network.inputs(), self._header()))
            loaded = load_artifact(path, registry=_registry_of(self.backend))
            given, wanted = _run(loaded, network), _run(self._lower(graph, network), network)
            expect(torch.equal(given, wanted), f"the results of {name} as before it was saved", "others")

    def _both(self) -> Iterator[tuple[str, Network]]:
        """Give one network of each kind: all rules but those of results hold for any."""
        for networks in (self.layers, self.networks):
            yield next(iter(networks.items()))

    def _reference(self, network: Network) -> torch.fx.GraphModule:
        """Give a network's reference graph. Skips where the backend does not run here."""
        backend = self.backend()
        reason = backend.is_available()
        if reason:
            pytest.skip(f"the backend {backend.name} does not run here: {reason}")
        return reference(network, backend, float_outputs=getattr(backend, "float_outputs", False))

    def _lower(self, graph: torch.fx.GraphModule, network: Network) -> torch.nn.Module:
        return self.backend().lower(graph, network.inputs())

    def _header(self) -> dict[str, Any]:
        backend = self.backend()
        return {"quantization": {"backend": backend.name, "reduce_range": backend.needs_reduced_range()}}


def _run(module: torch.nn.Module, network: Network, seed: int = _SEED) -> torch.Tensor:
    with torch.no_grad(), quiet_torch_ao():
        return flat(module(*network.inputs(seed))).clone()


def _step(graph: torch.fx.GraphModule, network: Network) -> float:
    """Give the scale of the graph's last quantization; of a result that stays float, a 255th of its range."""
    result = graph.graph.output_node().all_input_nodes[0]
    if result.target == "dequantize":
        scale: Any = result.all_input_nodes[0].args[1]
        return float(getattr(graph, str(scale.target)) if isinstance(scale, torch.fx.Node) else scale)
    low, high = torch.aminmax(_run(graph, network))
    return float(high - low) / 255


def _registry_of(backend: type[Backend]) -> Registry:
    """Give a registry that holds one backend."""

    class Plugin:
        @hookimpl
        def qgate_register_backends(self) -> list[type[Backend]]:
            return [backend]

    manager = pluggy.PluginManager("qgate")
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin(), "conformance")
    return Registry(manager)
