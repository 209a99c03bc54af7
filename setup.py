"""Builds qgate's one native module; all else is in pyproject.toml, whose own `ext-modules` is still experimental."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "qgate.quantization._byte_table",
            ["qgate/quantization/_byte_table.c"],
            # The compiler must not fuse a product with a sum where torch rounds both.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            py_limited_api=True,
            optional=True,  # without a compiler qgate installs as well, and looks tables up with OpenCV
        )
    ]
)
