"""Observation of the values that quantizers see, with padding left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from qexp.quant.calibration.padding import Padding, paddings_of
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.insertion.discovery import Side
from qexp.quant.insertion.sites import ATTENTION_KINDS, PADDED_COLUMNS, Site
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

Masks = Mapping[str, Tensor | None]
"""Attention mask of each sequence, non-zero for tokens that count; None counts all."""


class Observation:
    """Statistics of the activations of one model, and the padding of its values.

    Args:
        sites: All sites of the model.
        sides: Sequences of the rows and the columns of each activation, by quantizer name.

    Attributes:
        statistics: Statistics collected so far.
    """

    def __init__(self, sites: Sequence[Site], sides: Mapping[str, tuple[Side, Side]]) -> None:
        self._sides = dict(sides)
        self._with_columns = {site.quantizer for site in sites if site.kind in PADDED_COLUMNS}
        self._in_attention = {site.quantizer for site in sites if site.kind in ATTENTION_KINDS}
        self.statistics = CalibrationStatistics()

    @contextmanager
    def observing(
        self, quantizers: Mapping[str, Quantizer], masks: Masks, *, dimensions: bool, weights: QuantizerMode
    ) -> Iterator[None]:
        """Collect statistics inside the context, with the quantizers of weights in the mode ``weights``."""
        before = {quantizer: quantizer.mode for quantizer in quantizers.values()}
        paddings = paddings_of(self._sides, masks)
        for name, quantizer in quantizers.items():
            if name not in self._sides:
                quantizer.switch(weights)
            else:
                observe = partial(self._observe, quantizer, paddings[name], dimensions)
                quantizer.switch(QuantizerMode.OBSERVING, observe)
        try:
            yield
        finally:
            for quantizer, mode in before.items():
                quantizer.switch(mode)

    @contextmanager
    def padding(self, quantizers: Mapping[str, Quantizer], masks: Masks) -> Iterator[None]:
        """Exclude padding from the updates of moving averages inside the context."""
        paddings = paddings_of(self._sides, masks)
        for name, padding in paddings.items():
            if padding is not None:
                counted = partial(padding.entries, probabilities=name in self._with_columns)
                quantizers[name].counted = counted
        try:
            yield
        finally:
            for name in paddings:
                quantizers[name].counted = None

    def _observe(
        self, quantizer: Quantizer, padding: Padding | None, dimensions: bool, value: Tensor
    ) -> None:
        columns = quantizer.name in self._with_columns
        if padding is not None and not dimensions:
            value = padding.unfolded(value)
        self.statistics.add(
            quantizer.part,
            value,
            padding,
            probabilities=columns,
            dimensions=dimensions,
            extremes=quantizer.name not in self._in_attention,
        )
