"""All quantizers of a model, and operations on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from qexp.config import AnyCalibrator
from qexp.errors import QuantizationError
from qexp.quant.algorithms.smoothquant import dump_smoothing_factors, load_smoothing_factors
from qexp.quant.calibration.estimators import weight_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.insertion.calibrate import calibrate_activations
from qexp.quant.insertion.discovery import Side
from qexp.quant.insertion.export import ExportMode
from qexp.quant.insertion.hooks import Handle
from qexp.quant.insertion.observation import Observation
from qexp.quant.insertion.serialization import dump_ranges, load_ranges
from qexp.quant.insertion.sites import Site
from qexp.quant.insertion.weights import NAME, WeightHandle, on_optimizer_step, original, originals
from qexp.quant.messages import listed
from qexp.quant.minmax import batch_ends
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode


class QuantizedModel(nn.Module):
    """The quantizers that ``insert`` adds to a model.

    Its parameters are the learned ranges, which exist in the learned mode only. Its state holds the scales
    and zero points, and the moving averages of EMA mode.

    Attributes:
        counts_padding: Whether padding counts in the range updates of EMA mode.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: tuple[Site, ...],
        quantizers: Mapping[str, Quantizer],
        sides: Mapping[str, tuple[Side, Side]],
    ) -> None:
        super().__init__()
        self._owner = (model,)  # in a tuple, as a child module would make the module tree cyclic
        self.sites = sites
        self._names = tuple(quantizers)
        self.by_name = nn.ModuleDict({_key(name): quantizer for name, quantizer in quantizers.items()})
        self._observation = Observation(sites, sides)
        self._follows: AnyCalibrator | None = None
        self.counts_padding = False
        self.handles: list[Handle] = [
            model.register_forward_hook(self._forget, always_call=True),
            on_optimizer_step(self._after_step),
        ]
        self.train(model.training)

    @property
    def model(self) -> nn.Module:
        """Model that contains the quantizers."""
        return self._owner[0]

    @property
    def quantizers(self) -> dict[str, Quantizer]:
        """Quantizers by name: weights first, then activations in the order of the forward pass."""
        modules = cast("Iterable[Quantizer]", self.by_name.values())
        return dict(zip(self._names, modules, strict=True))

    def forward(self, *values: Any) -> Any:
        """Return the input unchanged.

        A model that runs its children in turn, such as ``nn.Sequential``, also runs this module.
        """
        return values[0] if len(values) == 1 else values

    @property
    def bits(self) -> dict[str, int]:
        """Bit-width by quantizer name."""
        return {name: quantizer.grid.bits for name, quantizer in self.quantizers.items()}

    def describe(self) -> dict[str, Any]:
        """Return the number of ``quantizers``, and that of ``sites`` by kind."""
        return {"quantizers": len(self._names), "sites": dict(Counter(site.kind for site in self.sites))}

    def off(self) -> None:
        """Switch all quantizers off, for a model in floating point."""
        self._switch(QuantizerMode.OFF)

    def freeze(self, names: Collection[str] | None = None) -> None:
        """Quantize with fixed ranges; learned ranges keep their current values.

        With ``names``, only these quantizers; all others are off.

        Raises:
            QuantizationError: If a quantizer has no range yet, or there is none of that name.
        """
        if unknown := sorted({*(names or ())} - {*self._names}):
            raise QuantizationError(
                f"no quantizers of the names {listed(unknown)}: take them from quantizers"
            )
        for name, quantizer in self.quantizers.items():
            quantizer.switch(QuantizerMode.FROZEN if names is None or name in names else QuantizerMode.OFF)

    def learn(self, *, zero_points: bool = False, ends: bool = False) -> None:
        """Quantize with learned scales, which start at the current ranges.

        Args:
            zero_points: Whether asymmetric activation quantizers learn their zero points, too. The zero point
                of values that are known to be non-negative stays fixed.
            ends: Whether all quantizers learn the minimum and maximum of their range instead.

        Raises:
            QuantizationError: If a quantizer has no range yet.
        """
        activations = self.activations()
        for name, quantizer in self.quantizers.items():
            quantizer.learns_zero_point = zero_points and name in activations and quantizer.values == "act"
            quantizer.learns_ends = ends
        self._switch(QuantizerMode.LEARNED)

    def use_ema(self, decay: float, *, magnitude: bool = False, restart: bool = False) -> None:
        """Quantize with ranges that are updated from the quantized values.

        Activation ranges start at their current values, and every forward pass in training mode moves them
        towards the minimum and maximum of its batch; ``padding`` excludes padding. In evaluation mode they
        are fixed. Weight ranges are those of the current weights, now and after each optimizer step.

        Args:
            decay: Weight of the past in the moving averages, from 0 to below 1.
            magnitude: Whether to average each batch's largest magnitude, not its minimum and maximum.
            restart: Whether the averages start at the first batch, not at the current ranges.

        Raises:
            QuantizationError: If a quantizer has no range yet.
        """
        activations = self.activations()
        for name, quantizer in self.quantizers.items():
            quantizer.decay = decay if name in activations else 0.0
            quantizer.averages_magnitude, quantizer.restarts = magnitude, restart
        self._switch(QuantizerMode.EMA)
        self._update_weight_ema()

    @property
    def uses_ema(self) -> bool:
        """Whether ranges are updated from the quantized values."""
        return any(quantizer.mode is QuantizerMode.EMA for quantizer in self.quantizers.values())

    @property
    def masks_padding(self) -> bool:
        """Whether padding must be excluded from range updates."""
        return self.uses_ema and not self.counts_padding

    def follow_weights(self, calibrator: AnyCalibrator) -> None:
        """Set the weight ranges after each optimizer step, from the weights as they are then."""
        self._follows = calibrator
        self.calibrate_weights(calibrator)

    def split(self, parts: int) -> None:
        """Set the number of parts of a batch, due to gradient accumulation or several devices.

        LSQ's gradient scale of an activation becomes that of the whole batch.
        """
        activations = self.activations()
        for name, quantizer in self.quantizers.items():
            quantizer.parts = parts if name in activations else 1

    def observing(
        self,
        mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        *,
        dimensions: bool = False,
        quantized_weights: bool = False,
    ) -> AbstractContextManager[None]:
        """Collect statistics of what the model computes inside the context.

        Args:
            mask: Attention mask [B, S] of the batch, non-zero for tokens that count; None counts all.
            target_mask: Mask of the decoder's tokens, [B, T], for a model with encoder and decoder.
            dimensions: Whether to collect statistics of each dimension of a value [B, T, H], too.
            quantized_weights: Whether weights are quantized meanwhile; activations never are.

        Raises:
            QuantizationError: If an activation is NaN or infinite, or a weight to quantize has no range yet.
        """
        masks = {"source": mask, "target": target_mask}
        weights = QuantizerMode.FROZEN if quantized_weights else QuantizerMode.OFF
        return self._observation.observing(self.quantizers, masks, dimensions=dimensions, weights=weights)

    def padding(
        self, mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> AbstractContextManager[None]:
        """Exclude padding from range updates inside the context; the masks are those of ``observing``."""
        return self._observation.padding(self.quantizers, {"source": mask, "target": target_mask})

    def statistics(self) -> CalibrationStatistics:
        """Return the statistics collected so far, over all contexts of ``observing``."""
        return self._observation.statistics

    def activations(self) -> dict[str, list[Site]]:
        """Return the sites of activations, by quantizer name."""
        sites: dict[str, list[Site]] = {}
        for site in self.sites:
            if not site.is_weight:
                sites.setdefault(site.quantizer, []).append(site)
        return sites

    def calibrate(self, statistics: CalibrationStatistics, calibrator: AnyCalibrator) -> None:
        """Set all ranges: activation ranges from statistics, weight ranges from the current weights.

        Raises:
            QuantizationError: If statistics of an activation, or required statistics of its dimensions, are
                missing, or a weight is NaN or infinite.
        """
        activations = self.activations()
        quantizers = {name: each for name, each in self._with_ranges().items() if name in activations}
        calibrate_activations(quantizers, statistics, calibrator)
        self.calibrate_weights(calibrator)

    def calibrate_weights(self, calibrator: AnyCalibrator) -> None:
        """Set the weight ranges from the current weights.

        Raises:
            QuantizationError: If a weight is NaN or infinite.
        """
        quantizers = self._with_ranges()
        for name, weight in originals(self.model, self.sites, quantizers).items():
            quantizers[name].set_range(*weight_range(weight, calibrator, quantizers[name].grid))

    def integers(self, name: str) -> Tensor:
        """Return a weight as integers of its grid, as it would be stored.

        Args:
            name: Name of the weight's site.

        Returns:
            Integers in the shape and on the device of the weight: int8 or uint8 up to 8 bits, else int32.

        Raises:
            QuantizationError: If there is no weight of that name, or its quantizer has no range yet.
        """
        sites = {site.name: site for site in self.sites if site.is_weight}
        if name not in sites:
            raise QuantizationError(f"{name}: no weight of that name; there are {listed(list(sites))}")
        return self.quantizers[sites[name].quantizer].integers(original(self.model, sites[name]).detach())

    def ranges(self) -> dict[str, Tensor]:
        """Return copies of all ranges on the CPU: ``<quantizer>/scale``, ``/zero_point`` and ``/levels``.

        ``/levels`` holds the lowest and the highest integer of the grid. Where dimensions share ranges,
        ``/members`` is the group of each, int64 [H]; where a quantizer has factors, ``/migration`` holds
        them. Dynamic quantizers have no range.
        """
        return dump_ranges(self._with_ranges()) | dump_smoothing_factors(self.quantizers)

    def load_ranges(self, tensors: Mapping[str, Tensor]) -> None:
        """Load ranges that ``ranges`` returned.

        Raises:
            QuantizationError: If names are missing or unknown, or shapes or values do not fit.
        """
        rest = load_smoothing_factors(self.model, self.sites, self.quantizers, tensors)
        load_ranges(self._with_ranges(), rest, type(self.model).__name__)

    def export_mode(self) -> ExportMode:
        """Convert the model to its form for ``torch.export``, immediately; see ``ExportMode``.

        Raises:
            QuantizationError: If a quantizer has no range yet.
        """
        return ExportMode(self.model, self.sites, self.quantizers)

    def remove(self) -> None:
        """Restore the model as before ``insert``: hooks, parametrizations, attention and names."""
        while self.handles:
            self.handles.pop().remove()
        delattr(self.model, NAME)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.handles.append(on_optimizer_step(self._after_step))  # a copy is notified of steps, too

    def _with_ranges(self) -> dict[str, Quantizer]:
        return {name: each for name, each in self.quantizers.items() if not each.grid.dynamic}

    def _switch(self, mode: QuantizerMode) -> None:
        for quantizer in self.quantizers.values():
            quantizer.switch(mode)

    def _update_weight_ema(self) -> None:
        quantizers = self._with_ranges()
        for name, weight in originals(self.model, self.sites, quantizers).items():
            grid = quantizers[name].grid
            quantizers[name].update_ema(*batch_ends(grid.in_blocks(weight), grid.axis))

    def _forget(self, *_: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for quantizer in self.by_name.values():
            cast("Quantizer", quantizer).forget()

    def _after_step(self) -> None:
        for handle in self.handles:
            if isinstance(handle, WeightHandle):
                handle.weight.forget()
        if self._follows is not None:
            self.calibrate_weights(self._follows)
        if self.uses_ema:
            self._update_weight_ema()


def _key(name: str) -> str:
    """Return a name for a module, which may not contain a dot."""
    return name.replace(".", "/")
