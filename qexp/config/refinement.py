"""Section for post-training refinements of a model before or after calibration."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from qexp.config.base import Section, refuse_unused


class Refinement(Section):
    """Improvements of scales and rounding that need calibration rows only."""

    name: str = "none"
    """Short name, for tables."""
    equalize: bool = False
    """Cross-layer equalization: weights of two layers with nothing but a ReLU, or an average over tokens,
    between them are scaled against each other, which leaves the float model as it is (Nagel et al. 2019)."""
    migration: float | None = Field(default=None, ge=0, le=1)
    """Share of the inputs' range that moves into the weights of linear layers, as SmoothQuant's alpha;
    null is none."""
    rounding: Literal["nearest", "adaround"] = "nearest"
    """Round weights to the nearest level, or to the one that keeps each layer's output (AdaRound)."""
    iterations: int = Field(default=500, ge=1)
    """Steps that AdaRound takes for each weight."""
    bias_correction: bool = False
    """Take the mean error that quantized weights cause out of each layer's bias (Nagel et al. 2019)."""

    @model_validator(mode="after")
    def _iterations_are_of_adaround(self) -> Self:
        if self.rounding != "adaround":
            because, instead = f"rounding={self.rounding}", "refinement.rounding=adaround"
            refuse_unused(self, ["iterations"], because, instead)
        return self

    @property
    def reads_moments(self) -> bool:
        """Whether any refinement needs the moments of linear layers' inputs."""
        return self.migration is not None or self.changes_weights

    @property
    def changes_weights(self) -> bool:
        """Whether weights or biases change after calibration."""
        return self.rounding == "adaround" or self.bias_correction
