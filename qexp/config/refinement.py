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
    rounding: Literal["nearest", "adaround", "gptq"] = "nearest"
    """Round weights to the nearest level, or to levels that keep each layer's output: up or down as learned
    (AdaRound), or column by column, each making up for the errors before it (GPTQ, Frantar et al. 2022)."""
    iterations: int = Field(default=500, ge=1)
    """Steps that AdaRound takes for each weight."""
    damping: float = Field(default=0.01, ge=0)
    """Share of the mean of the diagonal of GPTQ's Hessian that is added to the diagonal; raised where the
    Hessian is not positive definite."""
    activation_order: bool = True
    """Whether GPTQ starts with the columns of the largest inputs (act_order, desc_act), or goes by index."""
    bias_correction: bool = False
    """Take the mean error that quantized weights cause out of each layer's bias (Nagel et al. 2019)."""

    @model_validator(mode="after")
    def _check_numbers_are_read(self) -> Self:
        numbers = {"adaround": ["iterations"], "gptq": ["damping", "activation_order"]}
        for rounding, names in numbers.items():
            if self.rounding != rounding:
                because, instead = f"rounding={self.rounding}", f"refinement.rounding={rounding}"
                refuse_unused(self, names, because, instead)
        return self

    @property
    def reads_moments(self) -> bool:
        """Whether any refinement needs the moments of linear layers' inputs."""
        return self.migration is not None or self.changes_weights

    @property
    def rounds_by_moments(self) -> bool:
        """Whether rounding needs second moments of linear layers' inputs."""
        return self.rounding != "nearest"

    @property
    def changes_weights(self) -> bool:
        """Whether weights or biases change after calibration."""
        return self.rounds_by_moments or self.bias_correction
