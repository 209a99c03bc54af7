"""Which layers of an artifact add most noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.engine.probe import Probe, spread
from qgate.engine.variants import Variants
from qgate.quantization.sensitivity import LayerNoise, layer_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from qgate.engine.load import Inputs
    from qgate.plugins import Registry

__all__ = ["by_own_noise", "noisiest"]


def noisiest(inputs: Inputs, chosen: Sequence[int], artifact: Path, registry: Registry) -> list[LayerNoise]:
    """Give the layers of an artifact, the one that adds most noise by itself first."""
    variants = Variants.of(inputs.loaded, artifact, registry)
    batches = Probe.of(inputs, spread(chosen)).batches
    return by_own_noise(layer_noise(variants.floats, variants.reference, batches))


def by_own_noise(layers: Iterable[LayerNoise]) -> list[LayerNoise]:
    """Order layers by the noise that each adds by itself, the worst first."""
    return sorted(layers, key=lambda layer: layer.alone.snr)
