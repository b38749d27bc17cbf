"""Model of a run as artifacts of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qexp.artifacts.types import ModelArtifact, Ranges

if TYPE_CHECKING:
    from qexp.config import QuantizationConfig


@dataclass(frozen=True)
class RunModel:
    """Model of a run: in floating point, or with a quantization config and ranges."""

    encoder: ModelArtifact
    quant_config: QuantizationConfig | None = None
    """Quantization of the model; None in floating point."""
    ranges: Ranges | None = None
