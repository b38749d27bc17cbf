"""What quantizers can do."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a quantizer does with a tensor."""

    OFF = "off"
    """Nothing."""
    OBSERVING = "observing"
    """Show it to the observer, change nothing."""
    FROZEN = "frozen"
    """Fake-quantize with a fixed scale."""
    FOLLOWING = "following"
    """Fake-quantize with a range that follows what comes by in training mode, as a moving average."""
    LEARNED = "learned"
    """Fake-quantize with a scale, and maybe a zero point, that is trained."""
    EXPORT = "export"
    """Call the operator that an exporter recognizes."""
