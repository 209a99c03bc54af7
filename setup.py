"""Builds qgate's one native module; all else is in pyproject.toml, whose own `ext-modules` is still experimental."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "qgate.quantization._byte_table",
            ["qgate/quantization/_byte_table.c", "qgate/quantization/_byte_operators.c"],
            depends=["qgate/quantization/_byte_table.h"],
            # The compiler must not fuse a product with a sum where torch rounds both.
            # An operator's error is a C++ exception of torch's, which passes through.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fexceptions"],
            py_limited_api=True,
            optional=True,  # without a compiler qgate installs as well, and looks tables up with OpenCV
        )
    ]
)
