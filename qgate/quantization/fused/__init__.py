"""int8 as fast as the machine allows: a lowering of the reference graph to oneDNN's kernels on plain uint8 tensors."""

from qgate.quantization.fused.backend import FusedBackend

__all__ = ["FusedBackend"]
