"""A quantized model in the form that an exporter understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qexp.quant.grid import Grid, quantize
from qexp.quant.insertion.quantized_weight import QuantizedWeight
from qexp.quant.insertion.sites import Site
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import Phase


class StoredWeight(nn.Module):
    """Parametrization of an integer weight: ``torch.ops.qexp.dequantize`` of it.

    Integers lie in a signed type, int8 up to 8 bits and int16 above. An unsigned grid is moved down
    by half its size, weight and zero point alike, which changes no value.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        grid = quantizer.grid
        self.axis = -1 if grid.axis is None else grid.axis
        self.register_buffer("migration", quantizer.migration if quantizer.keeps_migration else None)
        self.migration: Tensor | None
        self.register_buffer("scale", quantizer.current_scale().detach().clone())
        self.register_buffer("zero_point", (quantizer.zero_point - _shift(grid)).to(_type(grid)))

    def forward(self, stored: Tensor) -> Tensor:
        """The weight as float32."""
        weight: Tensor = torch.ops.qexp.dequantize(stored, self.scale, self.zero_point, self.axis)
        return weight if self.migration is None else weight * self.migration


class ExportForm:
    """The change of a model into its export form, made on construction.

    Activations call ``torch.ops.qexp.fake_quantize``; weights become integer buffers that
    ``torch.ops.qexp.dequantize`` turns into numbers. One way, or a context manager that restores the
    float weights and the phases at its end.

    Raises:
        QuantizationError: a quantizer has no range yet.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], quantizers: Mapping[str, Quantizer]) -> None:
        import qexp.custom_ops  # noqa: F401  defines torch.ops.qexp

        self.phases = [(quantizer, quantizer.phase) for quantizer in quantizers.values()]
        for quantizer in quantizers.values():
            quantizer.switch(Phase.EXPORT)
        _cancel_migration(sites, quantizers)
        self.weights: list[tuple[nn.Module, str, nn.Parameter, QuantizedWeight]] = []
        self._stored: dict[int, tuple[Tensor, StoredWeight]] = {}
        for site in sites:
            if site.is_weight:
                self._store(model.get_submodule(site.module), site.parameter)

    def _store(self, module: Any, name: str) -> None:
        parametrization = module.parametrizations[name][0]
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        weight, quantizer = getattr(module, name), parametrization.quantizer
        self.weights.append((module, name, weight, parametrization))
        if id(weight) not in self._stored:  # a tied weight is stored once
            self._stored[id(weight)] = stored_integers(weight.detach(), quantizer), StoredWeight(quantizer)
        integers, dequantize = self._stored[id(weight)]
        delattr(module, name)
        module.register_buffer(name, integers)
        parametrize.register_parametrization(module, name, dequantize, unsafe=True)

    def restore(self) -> None:
        """Bring the float weights and the phases back."""
        while self.weights:
            module, name, weight, parametrization = self.weights.pop()
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            delattr(module, name)
            module.register_parameter(name, weight)
            parametrize.register_parametrization(module, name, parametrization)
        for quantizer, phase in self.phases:
            quantizer.switch(phase)

    def __enter__(self) -> ExportForm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def _cancel_migration(sites: Sequence[Site], quantizers: Mapping[str, Quantizer]) -> None:
    """Where all weights that read a value have its factors, nothing is multiplied again."""
    weights = {site.module: quantizers[site.quantizer] for site in sites if site.kind == "linear.weight"}
    readers: dict[str, list[str]] = {}
    for site in sites:
        if site.kind == "linear.input" and quantizers[site.quantizer].migration is not None:
            readers.setdefault(site.quantizer, []).append(site.module)
    for name, modules in readers.items():
        there = [weights[module] for module in modules if module in weights]
        for quantizer in (quantizers[name], *there):
            quantizer.keeps_migration = len(there) < len(modules)


def stored_integers(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """A weight as it is stored: int8 up to 8 bits, int16 above; see ``StoredWeight`` for unsigned grids."""
    integers = quantize(quantizer.divided(weight), quantizer.scale, quantizer.zero_point, quantizer.grid)
    return (integers - _shift(quantizer.grid)).to(_type(quantizer.grid))


def _type(grid: Grid) -> torch.dtype:
    return torch.int8 if grid.bits <= 8 else torch.int16


def _shift(grid: Grid) -> int:
    return 0 if grid.signed else 2 ** (grid.bits - 1)
