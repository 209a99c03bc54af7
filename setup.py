"""Builds qgate's one native module; all else is in pyproject.toml, whose own `ext-modules` is still experimental."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "qgate.quantization._byte_table",
            ["qgate/quantization/_byte_table.c"],
            # Bits are defined by float32 operations that are each rounded, which a fused multiply-add is not.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            py_limited_api=True,
            optional=True,  # without a compiler qgate installs as well, and looks tables up with OpenCV
        )
    ]
)
