"""Modes of a quantizer."""

from __future__ import annotations

from enum import StrEnum


class QuantizerMode(StrEnum):
    """Operation that a quantizer applies to a tensor."""

    OFF = "off"
    """Return the tensor unchanged."""
    OBSERVING = "observing"
    """Pass the tensor to the observer and return it unchanged."""
    FROZEN = "frozen"
    """Fake-quantize with a fixed scale."""
    EMA = "ema"
    """Fake-quantize with a range that is a moving average over the batches of training mode."""
    LEARNED = "learned"
    """Fake-quantize with a trained scale and, optionally, a trained zero point."""
    EXPORT = "export"
    """Call the operator that an exporter recognizes."""
