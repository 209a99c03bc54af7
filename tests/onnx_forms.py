"""Functions of a tensor, one for each operator that is written to ONNX and read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (1, 4, 8, 8)
ROWS = (1, 6, 8)


class Applied(nn.Module):
    """A function as a module, so that FX traces it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def traced(form: Any) -> fx.GraphModule:
    """Trace a module, or a function of one tensor; its weights are the same each time."""
    module = form if isinstance(form, nn.Module) else Applied(form)
    if type(module).__module__.startswith("torch.nn"):
        module = nn.Sequential(module)  # FX traces into what it is given
    return fx.GraphModule(module.eval(), fx.Tracer().trace(module))


def drawn(shape: tuple[int, ...], batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Draw an input of that shape, and of a batch."""
    return 2 * torch.randn((batch, *shape[1:]), generator=torch.Generator().manual_seed(seed))


def with_seed(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def _norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.running_mean)
    return norm


_ACTIVATIONS = (
    *(nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.LeakyReLU(0.2)),
    *(nn.ELU(), nn.SELU(), nn.CELU(), nn.PReLU(4), nn.GELU(), nn.Mish(), nn.Softplus(), nn.Hardtanh(-0.5, 2.0)),
)

# Every form takes a tensor of `SHAPE`, with any batch.
FORMS: dict[str, Any] = {
    **{type(module).__name__: module for module in _ACTIVATIONS},
    "conv": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "conv, dilated and grouped": lambda: nn.Conv2d(4, 6, 3, dilation=2, groups=2, bias=False),
    "conv, even and same": lambda: nn.Conv2d(4, 6, 2, padding="same"),
    "conv, reflected": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "transposed conv": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 3, 5, padding=2)),
    "batch norm": _norm,
    "layer norm": lambda: nn.LayerNorm(8),
    "linear on rows": lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 5)),
    "linear on a map": lambda: nn.Linear(8, 5),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "average pool": nn.AvgPool2d(3, 2, 1),
    "average pool, without padding": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pool, 1d": lambda: nn.Sequential(nn.Flatten(2), nn.AvgPool1d(2)),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "global max pool": nn.AdaptiveMaxPool2d(1),
    "pool to a size": nn.AdaptiveAvgPool2d((2, 4)),
    "upsample": nn.Upsample(scale_factor=2),
    "upsample, bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "upsample, cubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "interpolate, corners": lambda x: functional.interpolate(x, (12, 20), mode="bilinear", align_corners=True),
    "zero pad": nn.ZeroPad2d((1, 2, 0, 3)),
    "pad": lambda x: functional.pad(x, (1, 0, 2, 1), value=0.5),
    "reflection pad": nn.ReflectionPad2d(2),
    "softmax": nn.Softmax(1),
    "log softmax": lambda x: functional.log_softmax(x, dim=-1),
    "add, mul, sub, div": lambda x: (x + 1.5) * x - x / (x.abs() + 2),
    "sum with a factor": lambda x: torch.add(x, x.relu(), alpha=3),
    "exp, sqrt, log, pow": lambda x: torch.log(torch.sqrt(torch.exp(x)) + x**2),
    "clamp": lambda x: x.clamp(min=-0.5),
    "attention": lambda x: torch.softmax(torch.matmul(x, x.transpose(-1, -2)) / 8**0.5, -1) @ x,
    "cat": lambda x: torch.cat([x, x.tanh()], 1),
    "stack": lambda x: torch.stack([x, -x], dim=2),
    "chunk": lambda x: torch.chunk(x, 2, 1)[1],
    "split": lambda x: x.split([1, 3], dim=1)[1] * 2,
    "slices": lambda x: x[:, 1:, ::2, -3:],
    "index": lambda x: x[:, 2],
    "ellipsis and none": lambda x: x[..., 1:][:, None],
    "view by shape": lambda x: x.view(x.shape[0], -1),
    "reshape in heads": lambda x: x.reshape(x.size(0), 2, 2, 64).permute(0, 2, 1, 3),
    "flatten": lambda x: torch.flatten(x, 2),
    "squeeze, unsqueeze": lambda x: x.mean(dim=(2, 3), keepdim=True).squeeze(3).unsqueeze(1),
    "mean, sum, max": lambda x: (x.mean(1), x.sum(dim=[2, 3]), torch.amax(x, 1)),
}


def form(name: str) -> fx.GraphModule:
    """Give a form, traced: a module, what makes one, or a function."""
    given = FORMS[name]
    made = given if isinstance(given, nn.Module) or not _makes(given) else with_seed(given)
    return traced(made)


def _makes(given: Callable[..., Any]) -> bool:
    return given.__code__.co_argcount == 0
