"""Calibration passes of the peers: what each collects while the batches go through the model.

Sites are those of ``benchmarks.peers``; hooks watch linear inputs with ``linear``, and the residual
operands and matmul inputs as well with ``qdqbert``. A pass begins without statistics, and leaves padding in:
none of the peers knows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import seconds
from benchmarks.peers import brevitas, hooks, modelopt
from benchmarks.shapes import Batch

Pass = Callable[[Any, str, list[Batch]], Callable[[], None]]
BINS = 2048


def modelopt_pass(model: Any, sites: str, batches: list[Batch], calibrator: str) -> Callable[[], None]:
    """modelopt, whose quantizers of weights look at every batch as well."""
    from modelopt.torch.quantization.model_calib import enable_stats_collection

    model = modelopt.insert(model, sites, calibrator)
    enable_stats_collection(model)

    def run() -> None:
        for quantizer in _modelopt_quantizers(model):
            quantizer._calibrator.reset()
        _forward(model, batches)

    return run


def modelopt_searches(model: Any, sites: str, batches: list[Batch]) -> dict[str, float]:
    """Seconds of each of its histogram methods for one quantizer: an input of a feed-forward layer."""
    modelopt_pass(model, sites, batches, "histogram")()
    layer = model.bert.encoder.layer[0].intermediate.dense
    quantizer = layer.input_quantizer
    return {
        f"modelopt {method}": seconds(partial(quantizer._calibrator.compute_amax, method))
        for method in ("percentile", "mse", "entropy")
    }


def _modelopt_quantizers(model: Any) -> list[Any]:
    from modelopt.torch.quantization.nn import TensorQuantizer

    return [each for each in model.modules() if isinstance(each, TensorQuantizer) and each.is_enabled]


def brevitas_pass(model: Any, sites: str, batches: list[Batch]) -> Callable[[], None]:
    """Brevitas' calibration mode: a percentile of each batch, averaged."""
    if sites not in brevitas.SITES:
        raise ValueError(f"does not quantize the sites of {sites}")
    from brevitas.graph.calibrate import calibration_mode

    model = brevitas.prepare(model, sites, batches[0])

    def run() -> None:
        with calibration_mode(model):
            _forward(model, batches)

    return run


def hooks_pass(
    model: Any, sites: str, batches: list[Batch], observer: Callable[[], nn.Module]
) -> Callable[[], None]:
    """Observers in hooks."""
    watching: list[_Watch] = []

    def new() -> Any:
        watching.append(_Watch(observer))
        return watching[-1]

    hooks.attach(model, sites, new)

    def run() -> None:
        for watch in watching:
            watch.reset()
        _forward(model, batches)

    return run


class _Watch(nn.Module):
    def __init__(self, observer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.observer = observer
        self.current: nn.Module = observer()

    def reset(self) -> None:
        self.current = self.observer()

    def forward(self, x: Tensor) -> Tensor:
        self.current(x.detach())
        return x


class Histogram(nn.Module):
    """``torch.histc`` over the range of the first batch; what lies beyond it later is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: tuple[float, float] | None = None
        self.low, self.high, self.counts = 0.0, 0.0, torch.zeros(BINS)

    def forward(self, x: Tensor) -> None:
        """Count a batch."""
        low, high = (float(end) for end in torch.aminmax(x))
        self.ends = self.ends or (low, high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.counts += torch.histc(x, BINS, *self.ends)


def _torch_observer() -> nn.Module:
    from torch.ao.quantization import HistogramObserver

    return HistogramObserver()


def _forward(model: Any, batches: list[Batch]) -> None:
    with torch.no_grad():
        for batch in batches:
            model(**batch)


PASSES: dict[str, Pass] = {
    "modelopt max": partial(modelopt_pass, calibrator="max"),
    "modelopt histogram": partial(modelopt_pass, calibrator="histogram"),
    "brevitas percentile": brevitas_pass,
    "hooks, torch.histc": partial(hooks_pass, observer=Histogram),
    "hooks, HistogramObserver": partial(hooks_pass, observer=_torch_observer),
}
