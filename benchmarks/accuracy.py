"""Compare what int8 loses of float32's accuracy: qgate's recipes, torch's stock recipe, and its peers' quantizers.

Every form is calibrated on the same samples, the configuration's, and judged by the same metrics on the same evaluation
data, in pairs with float32: intervals are of a paired bootstrap. The first of qgate's forms is the configured recipe.

    pip install '.[bench]'
    QGATE_ASSETS=... python benchmarks/accuracy.py --output accuracy.json
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import logging
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.markup import escape
from runtime_forms import (
    Form,
    OnnxRuntime,
    OpenVino,
    Setting,
    as_channels_last,
    inductor_int8,
    onnx_file,
    openvino_model,
    openvino_request,
)
from runtimes import PACKAGES, Arm, build, open_network, titled

from qgate.config.model import QuantizationConfig
from qgate.engine.evaluate import compares_with_float32, evaluate
from qgate.engine.figures import Comparison
from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import quantize
from qgate.engine.state import torch_state
from qgate.environment import describe_environment
from qgate.errors import QGateError
from qgate.files import write_atomically
from qgate.quantization.backends import FbgemmBackend, saturates
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runtime_forms import Network

    from qgate.protocols import Metric

ROOT = Path(__file__).parents[1]
CONFIDENCE = 0.95
ONNX_STRIDE = 8  # samples of which ONNX Runtime holds all values at a time

Figures = dict[str, Any]


def recipe(network: Network, setting: Setting, **changed: Any) -> torch.nn.Module:
    """Quantize by the configured recipe, or with `changed` fields by one that says nothing else."""
    said = network.config.quantization
    said = replace(QuantizationConfig(said.place), **changed) if changed else said
    config = replace(network.config, quantization=said)
    graph = quantize(config, network.registry, network.inputs, network.chosen, StepClock(Silent()))[0]
    graph.meta["byte_scale"] = network.inputs.loaded.byte_scale  # as an artifact gives it
    lowered: torch.nn.Module = network.registry.backends.get(said.backend)().lower(graph, (network.images(setting),))
    return lowered


def stock(network: Network, setting: Setting) -> torch.nn.Module:
    """Quantize by torch's own default recipe and kernels."""
    return stock_int8(network.module, network.samples, network.images(setting))


def stock_int8(module: torch.nn.Module, samples: Iterable[torch.Tensor], images: torch.Tensor) -> torch.nn.Module:
    """Quantize a module by torch's default recipe for fbgemm, calibrated on `samples`; `images` is an example."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_to_reference_fx, prepare_fx

    with quiet_torch_ao():
        observed = prepare_fx(copy.deepcopy(module), get_default_qconfig_mapping("fbgemm"), (images,))
        with torch.no_grad():
            for sample in samples:
                observed(sample)
        return FbgemmBackend().lower(convert_to_reference_fx(observed), (images,))


class Samples:
    """The calibration samples as ONNX Runtime asks for them, a range at a time."""

    def __init__(self, samples: tuple[torch.Tensor, ...]) -> None:
        self.samples = samples
        self.left = iter(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these samples next."""
        self.left = iter(self.samples[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """Give the next sample."""
        sample = next(self.left, None)
        return None if sample is None else {"images": sample.numpy()}


def onnx(network: Network, setting: Setting, method: str) -> torch.nn.Module:
    """Quantize by ONNX Runtime's own tool, with the types that its documents advise for x86."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, path = network.folder / f"{method}-prepared.onnx", network.folder / f"{method}.onnx"
    quant_pre_process(onnx_file(network), prepared, skip_symbolic_shape=True)  # it cannot follow a Resize of any size
    quantize_static(
        prepared,
        path,
        Samples(network.samples),
        per_channel=True,
        reduce_range=saturates("onednn"),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        extra_options={"CalibStridedMinMax": ONNX_STRIDE},
    )
    return OnnxRuntime(path, setting)


def nncf(network: Network, setting: Setting, preset: str, *, fast_bias_correction: bool = True) -> torch.nn.Module:
    """Quantize by NNCF and run in OpenVINO."""
    import nncf as tool

    samples = tool.Dataset([sample.numpy() for sample in network.samples])
    model = tool.quantize(
        openvino_model(network),
        samples,
        preset=tool.QuantizationPreset(preset),
        subset_size=len(network.samples),
        fast_bias_correction=fast_bias_correction,
    )
    return OpenVino(openvino_request(model, setting, "f32"))


def ours(**changed: Any) -> Form:
    """Give the form of a recipe."""
    return Form(functools.partial(recipe, **changed), as_channels_last)


PLAIN = {"bias_correction": False}
ROUNDED = {"weight_rounding": "gptq"}
FORMS = {
    "qgate, as configured": ours(),
    **{
        f"qgate {backend}{said}": ours(backend=backend, **changed)
        for backend in ("fused", "fbgemm", "onednn")
        for said, changed in {"": {}, ", no correction": PLAIN, ", GPTQ": ROUNDED}.items()
    },
    "torch fbgemm, stock": Form(stock, as_channels_last),
    "torchao PT2E, Inductor": Form(inductor_int8),
    "onnxruntime, min-max": Form(functools.partial(onnx, method="MinMax")),
    "onnxruntime, entropy": Form(functools.partial(onnx, method="Entropy")),
    "onnxruntime, percentile": Form(functools.partial(onnx, method="Percentile")),
    "nncf, default": Form(functools.partial(nncf, preset="performance")),
    "nncf, mixed": Form(functools.partial(nncf, preset="mixed")),
    "nncf, bias correction not fast": Form(functools.partial(nncf, preset="performance", fast_bias_correction=False)),
}


def main() -> None:
    """Build and judge every form, one after another; print a table, and write what there is so far."""
    options = parsed()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        try:
            network, seed = open_network(options.config, Path(folder))
            with torch_state(seed=seed, num_threads=1):
                found: dict[str, Figures] = {}
                for name, figures in judged(network, options.only):
                    found[name] = figures
                    if options.output:
                        save(options.output, found)
        except QGateError as error:
            sys.exit(f"accuracy.py: {error}")
    show(found)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "examples" / "yolov5n-coco" / "qgate.toml")
    parser.add_argument("--only", default="", metavar="WORD", help="forms whose names have this in them")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all figures there, as JSON")
    return parser.parse_args()


def save(path: Path, found: dict[str, Figures]) -> None:
    """Write all figures as JSON."""
    packages = {package: version(package) for package in PACKAGES if find_spec(package)}
    document = {"environment": {**describe_environment(1, ROOT), "packages": packages}, "forms": found}
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())


def judged(network: Network, only: str) -> Iterator[tuple[str, Figures]]:
    """Give each form's figures, or the `reason` why it is missing."""
    setting = Setting(1, network.samples[0].shape[-1], 1)
    baseline = judge(network, network.module)
    for name, form in FORMS.items():
        if only not in name:
            continue
        print(f"{name} ...", file=sys.stderr)
        begin = time.perf_counter()
        try:
            ready = build(network, setting, name, form)
            seconds = time.perf_counter() - begin
            yield (
                name,
                {"quantize_seconds": seconds, **compared(network, baseline, judge(network, Arm(network, ready)))},
            )
        except ModuleNotFoundError as error:
            yield name, {"reason": f"{error.name} is not installed"}
        except Exception as error:  # noqa: BLE001  # a peer may raise anything; the others are compared all the same
            lines = str(error).strip().splitlines() or [type(error).__name__]
            yield name, {"reason": lines[0][:160]}


def judge(network: Network, module: torch.nn.Module) -> dict[str, Metric]:
    """Run a form over the evaluation data; give the metrics that thresholds name and that compare with targets."""
    registry, loaded = network.registry, network.inputs.loaded
    kinds = [registry.metrics.get(name) for name in network.config.thresholds if name in registry.metrics]
    metrics = {kind.name: kind(loaded.class_names) for kind in kinds if not compares_with_float32(kind)}
    evaluate(loaded, {"float32": module}, network.inputs.evaluation, {"float32": metrics}, Silent())
    return metrics


def compared(network: Network, baseline: dict[str, Metric], metrics: dict[str, Metric]) -> Figures:
    """Give each metric of a form, and how much is lost of float32's."""
    count = len(network.inputs.evaluation)
    figures = {
        name: Comparison(baseline[name], metric, count, CONFIDENCE, seed=0).figures()
        for name, metric in metrics.items()
    }
    kept = ("baseline", "candidate", "drop", "drop_interval")
    return {"metrics": {name: {key: values[key] for key in kept} for name, values in figures.items()}}


def show(found: dict[str, Figures]) -> None:
    """Print what each form loses of the first metric."""
    measured = [figures["metrics"] for figures in found.values() if "metrics" in figures]
    metric = next(iter(measured[0])) if measured else "metric"
    baseline = f"float32 has {measured[0][metric]['baseline']:.4f}" if measured else "nothing was measured"
    table = titled(baseline, "form", metric, "drop", "95% interval", "seconds")
    for name, figures in found.items():
        if "reason" in figures:
            table.add_row(name, "-", "-", escape(figures["reason"]))
            continue
        values = figures["metrics"][metric]
        low, high = values["drop_interval"]
        cells = (f"{values['candidate']:.4f}", f"{values['drop']:+.4f}", f"{low:+.4f} to {high:+.4f}")
        table.add_row(name, *cells, f"{figures['quantize_seconds']:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
