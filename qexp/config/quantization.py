"""Bit-widths, grids, calibrators and sites."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from qexp.config.section import FLOAT_BITS, Bits, Section


class Quant(Section):
    """Bit-widths."""

    weight_bits: Bits = 8
    """Bits of a weight, 2 to 16; 32 leaves weights in floating point."""
    activation_bits: Bits = 8
    """Bits of an activation, 2 to 16; 32 leaves activations in floating point."""

    @field_validator("weight_bits", "activation_bits")
    @classmethod
    def _known_width(cls, bits: int) -> int:
        if 16 < bits < FLOAT_BITS:
            raise ValueError(f"{bits} bits: allowed are 2 to 16, or {FLOAT_BITS} for floating point")
        return bits

    @property
    def name(self) -> str:
        """``fp32``, or the usual short form, such as ``w4a8``."""
        return f"w{self.weight_bits}a{self.activation_bits}" if self.enabled else "fp32"

    @property
    def quantizes_activations(self) -> bool:
        """Whether activations have grids."""
        return self.activation_bits < FLOAT_BITS

    @property
    def enabled(self) -> bool:
        """Whether anything is quantized at all."""
        return min(self.weight_bits, self.activation_bits) < FLOAT_BITS


class WeightScheme(Section):
    """Form of the weight grids."""

    granularity: Literal["per_tensor", "per_channel"] = "per_channel"
    """One range for the tensor, or one for each output channel."""
    symmetric: bool = True
    """Zero point 0 and a signed grid without its lowest value."""


class ActivationScheme(Section):
    """Form of the activation grids."""

    granularity: Literal["per_tensor"] = "per_tensor"
    """One range for the tensor."""
    symmetric: bool = False
    """Zero point 0 and a signed grid; false is an unsigned grid with a zero point."""


class Scheme(Section):
    """Granularity and symmetry."""

    weight: WeightScheme = WeightScheme()
    """Form of the weight grids."""
    activation: ActivationScheme = ActivationScheme()
    """Form of the activation grids."""


class Calibrator(Section):
    """What the calibrators have in common."""

    weights: Literal["max", "mse"] = "max"
    """How weight ranges are found: the largest magnitude, or the least squared error."""


class MaxCalibrator(Calibrator):
    """Smallest and largest value seen."""

    kind: Literal["max"]
    """Tag of the section."""


class EmaCalibrator(Calibrator):
    """Exponential moving average of each batch's smallest and largest value."""

    kind: Literal["ema"]
    """Tag of the section."""
    decay: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the past; 0 keeps only the last batch."""


class PercentileCalibrator(Calibrator):
    """Range that keeps this share of the magnitudes."""

    kind: Literal["percentile"]
    """Tag of the section."""
    percentile: float = Field(default=99.99, gt=0, le=100)
    """Share of values inside the range, in percent."""


class MseCalibrator(Calibrator):
    """Range with the least squared quantization error."""

    kind: Literal["mse"]
    """Tag of the section."""
    candidates: int = Field(default=100, ge=2)
    """How many shrunken ranges are tried for each grid."""


class EntropyCalibrator(Calibrator):
    """Range with the least Kullback-Leibler divergence of the magnitudes, as TensorRT's."""

    kind: Literal["entropy"]
    """Tag of the section."""
    bins: int = Field(default=2048, ge=256, le=2048)
    """Bins of a histogram between zero and the first batch's largest magnitude; a power of two."""
    first: int = Field(default=128, ge=2, le=256)
    """The narrowest range that is tried, in bins."""
    stride: int = Field(default=1, ge=1)
    """Bins from one range that is tried to the next."""

    @field_validator("bins")
    @classmethod
    def _power_of_two(cls, bins: int) -> int:
        if bins & (bins - 1):
            raise ValueError(f"{bins} bins: allowed are 256, 512, 1024 and 2048")
        return bins


class ClipCalibrator(Calibrator):
    """Smallest and largest value seen, but never beyond a ceiling, as NeurST's min/max."""

    kind: Literal["clip"]
    """Tag of the section."""
    weight_clip_max: float = Field(default=1.0, gt=0)
    """Largest magnitude that a weight's range has."""
    activation_clip_max: float = Field(default=16.0, gt=0)
    """Largest magnitude that an activation's range has."""


AnyCalibrator = Annotated[
    MaxCalibrator | EmaCalibrator | PercentileCalibrator | MseCalibrator | EntropyCalibrator | ClipCalibrator,
    Field(discriminator="kind"),
]


class Calibration(Section):
    """What calibration looks at."""

    samples: int = Field(default=512, ge=1)
    """Rows of the train split, drawn by ``seed``."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch."""


SiteKind = Literal[
    "linear.weight",
    "linear.input",
    "embedding.weight",
    "matmul.query",
    "matmul.key",
    "matmul.probs",
    "matmul.value",
    "attention.context",
    "attention.output",
    "activation.output",
    "layernorm.output",
    "residual.input",
    "declared.weight",
    "declared.activation",
]
ValueType = Literal["act", "relu", "softmax"]
"""Nothing is known of the values; none is negative; all lie between 0 and 1."""


class Placement(Section):
    """Which sites get a quantizer."""

    name: str
    """Short name of the list, for tables."""
    sites: tuple[SiteKind, ...] = Field(min_length=1)
    """Kinds of sites that are quantized."""
    typed: bool = False
    """Whether probabilities have the range [0, 1] and outputs of ReLU one from 0, both on unsigned grids."""
    exclude: tuple[str, ...] = ()
    """Globs over module names whose sites stay in floating point, such as ``*classifier*``."""


class Form(Section):
    """What is quantized, and on which grids: all that turns a float model into a quantized one."""

    placement: Placement
    quant: Quant
    scheme: Scheme
