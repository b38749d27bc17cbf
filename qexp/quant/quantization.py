"""All quantizers of a model, and what is done with all of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from qexp.config import AnyCalibrator
from qexp.errors import QuantizationError
from qexp.quant.calibrators import activation_range, weight_range
from qexp.quant.discovery import Side
from qexp.quant.export_form import ExportForm
from qexp.quant.grid import quantize
from qexp.quant.hooks import Handle
from qexp.quant.padding import Padding
from qexp.quant.placement import PADDED_COLUMNS, Site
from qexp.quant.quantizer import Phase, Quantizer
from qexp.quant.statistics import Statistics
from qexp.quant.weights import NAME, WeightHandle, after_each_step, original


class Quantization(nn.Module):
    """The quantizers that ``insert`` put into a model.

    Its parameters are the learned log-scales, none outside the learned phase. Its state holds the
    scales and zero points.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: tuple[Site, ...],
        quantizers: Mapping[str, Quantizer],
        sides: Mapping[str, tuple[Side, Side]],
    ) -> None:
        super().__init__()
        self._owner = (model,)  # in a tuple: a child would make the tree of modules a circle
        self.sites = sites
        self._names = tuple(quantizers)
        self.by_name = nn.ModuleDict({_key(name): quantizer for name, quantizer in quantizers.items()})
        self._sides = dict(sides)
        self._statistics = Statistics()
        self.handles: list[Handle] = [
            model.register_forward_hook(self._forget, always_call=True),
            after_each_step(self._forget_weights),
        ]

    @property
    def model(self) -> nn.Module:
        """The model that the quantizers are in."""
        return self._owner[0]

    @property
    def quantizers(self) -> dict[str, Quantizer]:
        """Quantizers by name: weights first, then activations in the order of the forward pass."""
        modules = cast("Iterable[Quantizer]", self.by_name.values())
        return dict(zip(self._names, modules, strict=True))

    def forward(self, *values: Any) -> Any:
        """What comes in: a model that runs its children in turn, as ``nn.Sequential``, runs this one, too."""
        return values[0] if len(values) == 1 else values

    @property
    def bits(self) -> dict[str, int]:
        """Bits by quantizer."""
        return {name: quantizer.grid.bits for name, quantizer in self.quantizers.items()}

    def describe(self) -> dict[str, Any]:
        """``{"quantizers": number, "sites": {kind: number}}``."""
        return {"quantizers": len(self._names), "sites": dict(Counter(site.kind for site in self.sites))}

    def off(self) -> None:
        """Compute in floating point."""
        self._switch(Phase.OFF)

    def freeze(self, names: Collection[str] | None = None) -> None:
        """Quantize with fixed ranges; learned ones keep where they are.

        Args:
            names: of the quantizers that do; all others are off. None is all of them.

        Raises:
            QuantizationError: a quantizer has no range yet, or there is none of that name.
        """
        if unknown := sorted({*(names or ())} - {*self._names}):
            raise QuantizationError(
                f"no quantizers of the names {_listed(unknown)}: take them from quantizers"
            )
        for name, quantizer in self.quantizers.items():
            quantizer.switch(Phase.FROZEN if names is None or name in names else Phase.OFF)

    def learn(self) -> None:
        """Quantize, with log-scales as parameters that start at the ranges.

        Raises:
            QuantizationError: a quantizer has no range yet.
        """
        self._switch(Phase.LEARNED)

    def split(self, parts: int) -> None:
        """From now on a batch is computed in so many parts, by gradient accumulation or on several devices.

        LSQ's gradient scale of an activation becomes that of the whole batch.
        """
        activations = self._activations()
        for name, quantizer in self.quantizers.items():
            quantizer.parts = parts if name in activations else 1

    def range_parameters(self) -> list[nn.Parameter]:
        """The learned log-scales; empty outside the learned phase."""
        return list(self.parameters())

    @contextmanager
    def observing(self, mask: Tensor | None = None, target_mask: Tensor | None = None) -> Iterator[None]:
        """Collect statistics of what the model computes, in floating point, inside the context.

        Args:
            mask: attention mask [B, S] of the batch inside, non-zero for tokens that count; None counts all.
            target_mask: the same for the decoder's tokens, [B, T], of a model with encoder and decoder.

        Raises:
            QuantizationError: an activation is NaN or infinite.
        """
        before = {quantizer: quantizer.phase for quantizer in self.quantizers.values()}
        columns = {site.quantizer for site in self.sites if site.kind in PADDED_COLUMNS}
        masks: dict[Side, Tensor | None] = {"source": mask, "target": target_mask}
        paddings = {
            (rows, columns): Padding.between(masks[rows], masks[columns])
            for rows, columns in set(self._sides.values())
        }
        for name, quantizer in self.quantizers.items():
            if name not in self._sides:
                quantizer.switch(Phase.OFF)
            else:
                padding = paddings[self._sides[name]]
                observe = partial(self._observe, name, padding, name in columns)
                quantizer.switch(Phase.OBSERVING, observe)
        try:
            yield
        finally:
            for quantizer, phase in before.items():
                quantizer.switch(phase)

    def statistics(self) -> Statistics:
        """What was collected so far, over all contexts of ``observing``."""
        return self._statistics

    def calibrate(self, statistics: Statistics, calibrator: AnyCalibrator) -> None:
        """Set all ranges: of activations from statistics, of weights from the weights as they are now.

        Raises:
            QuantizationError: no statistics of an activation, or a weight that is NaN or infinite.
        """
        activations = self._activations()
        missing = sorted(name for name in activations if name not in statistics or not statistics[name].lows)
        if missing:
            raise QuantizationError(
                f"no calibration statistics of {_listed(missing)}: they come from another model or "
                "placement, or from no batch; observe again with this placement"
            )
        for name, quantizer in self.quantizers.items():
            if name in activations:
                low, high = activation_range(statistics[name], calibrator, quantizer.grid, quantizer.values)
                if quantizer.ceiling is not None:
                    low, high = (end.clamp(-quantizer.ceiling, quantizer.ceiling) for end in (low, high))
            else:
                low, high = weight_range(self._weight(name), calibrator, quantizer.grid)
            quantizer.set_range(low, high)

    def integers(self, name: str) -> Tensor:
        """A weight on its grid, as it would be stored, in the shape of the weight and on its device.

        Args:
            name: of the weight's site.

        Returns:
            Int8 or uint8 up to 8 bits, else int32.

        Raises:
            QuantizationError: no weight has such a quantizer, or it has no range yet.
        """
        known = {site.name: site for site in self.sites if site.is_weight}
        if name not in known:
            raise QuantizationError(f"{name}: no weight of that name; there are {_listed(list(known))}")
        quantizer = self.quantizers[known[name].quantizer]
        if not quantizer.calibrated:
            raise QuantizationError(f"{name} has no range: calibrate or load ranges first")
        scale, grid = quantizer.current_scale().detach(), quantizer.grid
        weight = original(self.model, known[name]).detach()
        found = quantize(weight, scale, quantizer.zero_point, grid)
        return found if grid.bits > 8 else found.to(torch.int8 if grid.signed else torch.uint8)

    def ranges(self) -> dict[str, Tensor]:
        """Copies of all ranges, on the CPU: ``<quantizer>/scale``, ``/zero_point`` and ``/levels``.

        The latter are the lowest and the highest integer of its grid.
        """
        tensors = {}
        for name, quantizer in self.quantizers.items():
            tensors[f"{name}/scale"] = quantizer.current_scale().detach().cpu().clone()
            tensors[f"{name}/zero_point"] = quantizer.zero_point.cpu().clone()
            tensors[f"{name}/levels"] = torch.tensor([quantizer.grid.qmin, quantizer.grid.qmax])
        return tensors

    def load_ranges(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``ranges`` gave.

        Raises:
            QuantizationError: names that are missing or unknown, shapes or values that do not fit.
        """
        own = self.ranges()
        expected = {key: tensor.shape for key, tensor in own.items()}
        shapes = [
            f"{key} {list(tensors[key].shape)} for {list(shape)}"
            for key, shape in expected.items()
            if key in tensors and tensors[key].shape != shape
        ]
        levels = [key for key in own if key.endswith("/levels") and key in tensors]
        problems = {
            "missing": [key for key in expected if key not in tensors],
            "unknown": [key for key in tensors if key not in expected],
            "of another shape": shapes,
            "on another grid": [key for key in levels if tensors[key].tolist() != own[key].tolist()],
        }
        found = "; ".join(f"{what}: {_listed(keys)}" for what, keys in problems.items() if keys)
        if found:
            raise QuantizationError(
                f"ranges do not fit {type(self.model).__name__}: {found}; they belong to another model, "
                "placement or scheme: calibrate again"
            )
        for name, quantizer in self.quantizers.items():
            quantizer.set_scale(tensors[f"{name}/scale"], tensors[f"{name}/zero_point"])

    def export_form(self) -> ExportForm:
        """Turn the model, now, into what ``torch.export`` is to see; see ``ExportForm``.

        Raises:
            QuantizationError: a quantizer has no range yet.
        """
        return ExportForm(self.model, self.sites, self.quantizers)

    def remove(self) -> None:
        """Give the model back as it was before ``insert``: hooks, parametrizations, attention, names."""
        while self.handles:
            self.handles.pop().remove()
        delattr(self.model, NAME)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.handles.append(after_each_step(self._forget_weights))  # a copy is told of steps, too

    def _activations(self) -> set[str]:
        return {site.quantizer for site in self.sites if not site.is_weight}

    def _weight(self, name: str) -> Tensor:
        """The float weight of a quantizer; of several, which have one range, all their elements."""
        sites = [site for site in self.sites if site.is_weight and site.quantizer == name]
        found = {id(weight): weight for weight in (original(self.model, site) for site in sites)}
        first, *rest = found.values()
        return torch.cat([first.flatten(), *(weight.flatten() for weight in rest)]) if rest else first

    def _switch(self, phase: Phase) -> None:
        for quantizer in self.quantizers.values():
            quantizer.switch(phase)

    def _observe(self, name: str, padding: Padding | None, probabilities: bool, value: Tensor) -> None:
        self._statistics.add(name, value, padding, probabilities=probabilities)

    def _forget(self, *_: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for quantizer in self.by_name.values():
            cast("Quantizer", quantizer).forget()

    def _forget_weights(self) -> None:
        for handle in self.handles:
            if isinstance(handle, WeightHandle):
                handle.weight.forget()


def _key(name: str) -> str:
    """A name of a module may hold no dot."""
    return name.replace(".", "/")


def _listed(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
