"""Export form of a quantized model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qexp.errors import QuantizationError
from qexp.quant.float_grid import BlockGrid, FloatGrid
from qexp.quant.grid import Grid, divide, quantize
from qexp.quant.insertion.quantized_weight import QuantizedWeight
from qexp.quant.insertion.sites import Site
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode


class StoredWeight(nn.Module):
    """Parametrization that dequantizes an integer weight with ``torch.ops.qexp.dequantize``.

    Integers have a signed type, int8 up to 8 bits and int16 above. An unsigned grid is shifted down by half
    its size, for weight and zero point alike, which changes no value.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Quantizer, rows: int) -> None:
        super().__init__()
        grid = quantizer.integer_grid
        self.axis = -1 if grid.axis is None else grid.axis if grid.block is None else 1
        self.block = grid.block or 0
        self.register_buffer("migration", quantizer.migration if quantizer.keeps_pre_scale else None)
        self.migration: Tensor | None
        scale, zero_point = quantizer.current_scale().detach(), quantizer.zero_point - _shift(grid)
        self.register_buffer("scale", grid.table(scale, rows).clone())
        self.register_buffer("zero_point", grid.table(zero_point, rows).to(_type(grid)))

    def forward(self, stored: Tensor) -> Tensor:
        """Return the dequantized weight, float32."""
        weight: Tensor = torch.ops.qexp.dequantize(stored, self.scale, self.zero_point, self.axis, self.block)
        return weight if self.migration is None else weight * self.migration


class StoredFloats(nn.Module):
    """Parametrization that dequantizes a weight of 8-bit floats with ``torch.ops.qexp.dequantize_float``."""

    scale: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.axis = -1 if quantizer.grid.axis is None else quantizer.grid.axis
        self.register_buffer("migration", quantizer.migration if quantizer.keeps_pre_scale else None)
        self.migration: Tensor | None
        self.register_buffer("scale", quantizer.current_scale().detach().clone())

    def forward(self, stored: Tensor) -> Tensor:
        """Return the dequantized weight, float32."""
        weight: Tensor = torch.ops.qexp.dequantize_float(stored, self.scale, self.axis)
        return weight if self.migration is None else weight * self.migration


class ExportMode:
    """Conversion of a model to its export form, on construction.

    Activations call ``torch.ops.qexp.fake_quantize``; weights become integer buffers that
    ``torch.ops.qexp.dequantize`` converts to float. Grids of 8-bit floats have operators of their own. The
    conversion is permanent, unless the instance is used as a context manager, which restores the float
    weights and the phases on exit.

    Raises:
        QuantizationError: If a quantizer has no range yet, or a format that is a simulation.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], quantizers: Mapping[str, Quantizer]) -> None:
        import qexp.custom_ops  # noqa: F401  defines torch.ops.qexp

        _refuse_blocks(quantizers)
        self.phases = [(quantizer, quantizer.mode) for quantizer in quantizers.values()]
        for quantizer in quantizers.values():
            quantizer.switch(QuantizerMode.EXPORT)
        _cancel_migration(sites, quantizers)
        self.weights: list[tuple[nn.Module, str, nn.Parameter, QuantizedWeight]] = []
        self._stored: dict[int, tuple[Tensor, nn.Module]] = {}
        for site in sites:
            if site.is_weight:
                self._store(model.get_submodule(site.module), site.parameter)

    def _store(self, module: Any, name: str) -> None:
        parametrization = module.parametrizations[name][0]
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        weight, quantizer = getattr(module, name), parametrization.quantizer
        self.weights.append((module, name, weight, parametrization))
        if id(weight) not in self._stored:  # store a tied weight once
            self._stored[id(weight)] = _stored(weight.detach(), quantizer)
        integers, dequantize = self._stored[id(weight)]
        delattr(module, name)
        module.register_buffer(name, integers)
        parametrize.register_parametrization(module, name, dequantize, unsafe=True)

    def restore(self) -> None:
        """Restore the float weights and the phases."""
        while self.weights:
            module, name, weight, parametrization = self.weights.pop()
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            delattr(module, name)
            module.register_parameter(name, weight)
            parametrize.register_parametrization(module, name, parametrization)
        for quantizer, mode in self.phases:
            quantizer.switch(mode)

    def __enter__(self) -> ExportMode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def _cancel_migration(sites: Sequence[Site], quantizers: Mapping[str, Quantizer]) -> None:
    """Omit the factors of a value and its weights where all weights that read the value have them."""
    weights = {site.module: quantizers[site.quantizer] for site in sites if site.kind == "linear.weight"}
    readers: dict[str, list[str]] = {}
    for site in sites:
        if site.kind == "linear.input" and quantizers[site.quantizer].migration is not None:
            readers.setdefault(site.quantizer, []).append(site.module)
    for name, modules in readers.items():
        quantized = [weights[module] for module in modules if module in weights]
        for quantizer in (quantizers[name], *quantized):
            quantizer.keeps_pre_scale = len(quantized) < len(modules)


def _refuse_blocks(quantizers: Mapping[str, Quantizer]) -> None:
    for name, quantizer in quantizers.items():
        if isinstance(quantizer.grid, BlockGrid):
            raise QuantizationError(
                f"{name} is on {quantizer.grid.name}, which is simulated in torch and not exported; use "
                "deploy=none, or quant=fp8"
            )


def _stored(weight: Tensor, quantizer: Quantizer) -> tuple[Tensor, nn.Module]:
    """Return a weight as it is stored, and the parametrization that dequantizes it."""
    grid = quantizer.grid
    if isinstance(grid, FloatGrid):
        return stored_floats(weight, quantizer, grid), StoredFloats(quantizer)
    return stored_integers(weight, quantizer), StoredWeight(quantizer, len(weight))


def stored_floats(weight: Tensor, quantizer: Quantizer, grid: FloatGrid) -> Tensor:
    """Return the stored values of a weight on a grid of 8-bit floats, in steps of the scale."""
    assert grid.element.dtype is not None
    steps = divide(quantizer.pre_scaled(weight), grid.expand(quantizer.scale, weight.dim()))
    return grid.element.round(steps).to(grid.element.dtype)


def stored_integers(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """Return the stored integers of a weight, int8 up to 8 bits and int16 above; see ``StoredWeight``."""
    grid = quantizer.integer_grid
    integers = quantize(quantizer.pre_scaled(weight), quantizer.scale, quantizer.zero_point, grid)
    return (integers - _shift(grid)).to(_type(grid))


def _type(grid: Grid) -> torch.dtype:
    return torch.int8 if grid.bits <= 8 else torch.int16


def _shift(grid: Grid) -> int:
    return 0 if grid.signed else 2 ** (grid.bits - 1)
