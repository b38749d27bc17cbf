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
from qexp.quant.algorithms.smoothquant import factors_of, take_factors
from qexp.quant.calibration.estimators import weight_range
from qexp.quant.calibration.padding import Padding, paddings_of
from qexp.quant.calibration.statistics import Statistics
from qexp.quant.insertion.calibrate import calibrate_activations
from qexp.quant.insertion.discovery import Side
from qexp.quant.insertion.export import ExportForm
from qexp.quant.insertion.hooks import Handle
from qexp.quant.insertion.serialization import ranges_of, take_ranges
from qexp.quant.insertion.sites import PADDED_COLUMNS, Site
from qexp.quant.insertion.weights import NAME, WeightHandle, after_each_step, original, originals
from qexp.quant.messages import listed
from qexp.quant.minmax import batch_ends
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import Phase


class Quantization(nn.Module):
    """The quantizers that ``insert`` put into a model.

    Its parameters are the learned log-scales and shifts of zero points, none outside the learned phase. Its
    state holds the scales and zero points, and the ends of ranges that follow.
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
        self._with_columns = {site.quantizer for site in sites if site.kind in PADDED_COLUMNS}
        self._statistics = Statistics()
        self.handles: list[Handle] = [
            model.register_forward_hook(self._forget, always_call=True),
            after_each_step(self._after_step),
        ]
        self.train(model.training)

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
                f"no quantizers of the names {listed(unknown)}: take them from quantizers"
            )
        for name, quantizer in self.quantizers.items():
            quantizer.switch(Phase.FROZEN if names is None or name in names else Phase.OFF)

    def learn(self, *, zero_points: bool = False) -> None:
        """Quantize, with log-scales as parameters that start at the ranges.

        Args:
            zero_points: whether asymmetric ranges of activations learn their zero points, too. Where it is
                known of values that none is negative, the zero point stays.

        Raises:
            QuantizationError: a quantizer has no range yet.
        """
        activations = self.activations()
        for name, quantizer in self.quantizers.items():
            quantizer.learns_zero_point = zero_points and name in activations and quantizer.values == "act"
        self._switch(Phase.LEARNED)

    def follow(self, decay: float) -> None:
        """Quantize, with ranges that follow what is quantized.

        Ranges of activations start where they are, and move with every forward pass in training mode towards
        the smallest and largest value of its batch; ``padding`` says what does not count. In evaluation mode
        they stay. Ranges of weights are those of the weights, now and after each step of an optimizer.

        Args:
            decay: weight of the past in the moving averages, 0 to below 1.

        Raises:
            QuantizationError: a quantizer has no range yet.
        """
        activations = self.activations()
        for name, quantizer in self.quantizers.items():
            quantizer.decay = decay if name in activations else 0.0
        self._switch(Phase.FOLLOWING)
        self._follow_weights()

    @property
    def following(self) -> bool:
        """Whether ranges follow what is quantized."""
        return any(quantizer.phase is Phase.FOLLOWING for quantizer in self.quantizers.values())

    def split(self, parts: int) -> None:
        """From now on a batch is computed in so many parts, by gradient accumulation or on several devices.

        LSQ's gradient scale of an activation becomes that of the whole batch.
        """
        activations = self.activations()
        for name, quantizer in self.quantizers.items():
            quantizer.parts = parts if name in activations else 1

    def range_parameters(self) -> list[nn.Parameter]:
        """The learned log-scales and shifts; empty outside the learned phase."""
        return list(self.parameters())

    @contextmanager
    def observing(
        self, mask: Tensor | None = None, target_mask: Tensor | None = None, *, dimensions: bool = False
    ) -> Iterator[None]:
        """Collect statistics of what the model computes, in floating point, inside the context.

        Args:
            mask: attention mask [B, S] of the batch inside, non-zero for tokens that count; None counts all.
            target_mask: the same for the decoder's tokens, [B, T], of a model with encoder and decoder.
            dimensions: whether each dimension of a value [B, T, H] is looked at apart, too.

        Raises:
            QuantizationError: an activation is NaN or infinite.
        """
        before = {quantizer: quantizer.phase for quantizer in self.quantizers.values()}
        paddings = paddings_of(self._sides, {"source": mask, "target": target_mask})
        for name, quantizer in self.quantizers.items():
            if name not in self._sides:
                quantizer.switch(Phase.OFF)
            else:
                observe = partial(self._observe, name, paddings[name], dimensions)
                quantizer.switch(Phase.OBSERVING, observe)
        try:
            yield
        finally:
            for quantizer, phase in before.items():
                quantizer.switch(phase)

    @contextmanager
    def padding(self, mask: Tensor | None = None, target_mask: Tensor | None = None) -> Iterator[None]:
        """Leave padding out of ranges that follow the batch inside the context; masks as in ``observing``."""
        quantizers = self.quantizers
        paddings = paddings_of(self._sides, {"source": mask, "target": target_mask})
        for name, padding in paddings.items():
            if padding is not None:
                entries = partial(padding.entries, probabilities=name in self._with_columns)
                quantizers[name].counted = entries
        try:
            yield
        finally:
            for name in paddings:
                quantizers[name].counted = None

    def statistics(self) -> Statistics:
        """What was collected so far, over all contexts of ``observing``."""
        return self._statistics

    def activations(self) -> dict[str, list[Site]]:
        """Sites by the name of their quantizer, without weights."""
        found: dict[str, list[Site]] = {}
        for site in self.sites:
            if not site.is_weight:
                found.setdefault(site.quantizer, []).append(site)
        return found

    def calibrate(self, statistics: Statistics, calibrator: AnyCalibrator) -> None:
        """Set all ranges: of activations from statistics, of weights from the weights as they are now.

        Raises:
            QuantizationError: no statistics of an activation, or none of its dimensions where they are asked
                for, or a weight that is NaN or infinite.
        """
        activations = self.activations()
        found = {name: each for name, each in self._with_ranges().items() if name in activations}
        calibrate_activations(found, statistics, calibrator)
        self.calibrate_weights(calibrator)

    def calibrate_weights(self, calibrator: AnyCalibrator) -> None:
        """Set the ranges of weights, from the weights as they are now.

        Raises:
            QuantizationError: a weight that is NaN or infinite.
        """
        quantizers = self.quantizers
        for name, weight in originals(self.model, self.sites, quantizers).items():
            quantizers[name].set_range(*weight_range(weight, calibrator, quantizers[name].grid))

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
            raise QuantizationError(f"{name}: no weight of that name; there are {listed(list(known))}")
        return self.quantizers[known[name].quantizer].integers(original(self.model, known[name]).detach())

    def ranges(self) -> dict[str, Tensor]:
        """Copies of all ranges, on the CPU: ``<quantizer>/scale``, ``/zero_point`` and ``/levels``.

        The latter are the lowest and the highest integer of its grid. Where dimensions share ranges,
        ``/members`` says which, int64 [H]; where a quantizer has factors, ``/migration`` has them. Dynamic
        quantizers have no range.
        """
        return ranges_of(self._with_ranges()) | factors_of(self.quantizers)

    def load_ranges(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``ranges`` gave.

        Raises:
            QuantizationError: names that are missing or unknown, shapes or values that do not fit.
        """
        rest = take_factors(self.model, self.sites, self.quantizers, tensors)
        take_ranges(self._with_ranges(), rest, type(self.model).__name__)

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
        self.handles.append(after_each_step(self._after_step))  # a copy is told of steps, too

    def _with_ranges(self) -> dict[str, Quantizer]:
        return {name: each for name, each in self.quantizers.items() if not each.grid.dynamic}

    def _switch(self, phase: Phase) -> None:
        for quantizer in self.quantizers.values():
            quantizer.switch(phase)

    def _observe(self, name: str, padding: Padding | None, dimensions: bool, value: Tensor) -> None:
        columns = name in self._with_columns
        self._statistics.add(name, value, padding, probabilities=columns, dimensions=dimensions)

    def _follow_weights(self) -> None:
        quantizers = self.quantizers
        for name, weight in originals(self.model, self.sites, quantizers).items():
            quantizers[name].follow(*batch_ends(weight, quantizers[name].grid.axis))

    def _forget(self, *_: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for quantizer in self.by_name.values():
            cast("Quantizer", quantizer).forget()

    def _after_step(self) -> None:
        for handle in self.handles:
            if isinstance(handle, WeightHandle):
                handle.weight.forget()
        if self.following:
            self._follow_weights()


def _key(name: str) -> str:
    """A name of a module may hold no dot."""
    return name.replace(".", "/")
