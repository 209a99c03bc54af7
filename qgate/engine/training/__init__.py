"""Quantization-aware training: from a calibrated graph to a better one."""
