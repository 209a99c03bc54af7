"""Quantizing: the only place that imports torch.ao, which upstream has announced for removal."""
