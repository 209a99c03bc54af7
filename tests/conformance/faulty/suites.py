"""Every plugin of `KINDS`, those without a fault and those with one, under the suite of its kind: most of it fails."""

from faulty import KINDS

for name, module in KINDS.items():
    suite = module.Suite
    for plugin in (getattr(suite, suite.kind), *module.FAULTS):
        globals()[f"Test_{name}_{plugin.__name__}"] = type(
            f"Test_{name}_{plugin.__name__}", (suite,), {suite.kind: plugin}
        )
