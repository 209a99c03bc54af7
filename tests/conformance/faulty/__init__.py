"""Plugins with one fault each, a module a kind: `Suite` passes, and `FAULTS` names the rule that each breaks."""

from faulty import backends, calibrators, datasets, loaders, metrics, observers, reporters

KINDS = {
    "metrics": metrics,
    "observers": observers,
    "calibrators": calibrators,
    "backends": backends,
    "loaders": loaders,
    "datasets": datasets,
    "reporters": reporters,
}
