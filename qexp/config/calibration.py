"""Sections for calibrators, which choose ranges, and for the rows that they use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from qexp.config.base import Section, refuse_unused


class Calibrator(Section):
    """Base of all calibrators."""

    weights: Literal["max", "mse", "sqnr"] = "max"
    """How weight ranges are found: the largest magnitude, the least squared error, or as ``sqnr`` does."""


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
    statistic: Literal["ends", "magnitude"] = "ends"
    """Average the smallest and the largest value, or the largest magnitude and its negative."""


class PercentileCalibrator(Calibrator):
    """Range that keeps this share of the magnitudes."""

    kind: Literal["percentile"]
    """Tag of the section."""
    percentile: float = Field(default=99.99, gt=0, le=100)
    """Share of values inside the range, in percent."""
    edge: Literal["upper", "lower"] = "upper"
    """Edge of the histogram bin that reaches the share."""


class MseCalibrator(Calibrator):
    """Range with the least squared quantization error."""

    kind: Literal["mse"]
    """Tag of the section."""
    candidates: int = Field(default=100, ge=2)
    """How many shrunken ranges are tried for each grid, by ``search: grid``."""
    search: Literal["grid", "golden"] = "grid"
    """Try shares of the range, or narrow an interval of shares by the golden section."""

    @model_validator(mode="after")
    def _candidates_are_of_a_grid(self) -> Self:
        if self.search != "grid":
            because, instead = f"search={self.search}", "calibrator.search=grid"
            refuse_unused(self, ["candidates"], because, instead)
        return self


class SqnrCalibrator(Calibrator):
    """Range with the least expected noise, in which clipping counts more: AIMET's ``tf_enhanced``."""

    kind: Literal["sqnr"]
    """Tag of the section."""
    gamma: float = Field(default=3.0, gt=0)
    """Weight of the noise of clipped values."""
    symmetric_candidates: int = Field(default=101, ge=2)
    """Scales that are tried for a symmetric grid."""
    scale_candidates: int = Field(default=17, ge=2)
    """Scales that are tried for an asymmetric grid."""
    offset_candidates: int = Field(default=21, ge=2)
    """Zero points that are tried with each of them."""


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


class ImportedCalibrator(Calibrator):
    """Ranges that another tool found, from a file that ``qexp import`` writes."""

    kind: Literal["imported"]
    """Tag of the section."""
    path: str
    """The file."""
    sha256: str
    """Its checksum in hexadecimal; null is computed from the file when the run is composed."""
    missing: Literal["refuse", "calibrate"] = "refuse"
    """What is done with quantizers without a range: nothing runs, or they get the largest values seen."""
    unused: Literal["refuse", "ignore"] = "refuse"
    """What is done with ranges of no quantizer."""

    @model_validator(mode="before")
    @classmethod
    def _sum(cls, section: Any) -> Any:
        if not isinstance(section, Mapping) or section.get("sha256") is not None:
            return section
        path = section.get("path")
        try:
            content = Path(str(path)).expanduser().read_bytes()
        except OSError as error:
            raise ValueError(
                f"path={path}: cannot be read ({error.strerror}); name a file that qexp import wrote"
            ) from error
        return {**section, "sha256": hashlib.sha256(content).hexdigest()}


AnyCalibrator = Annotated[
    MaxCalibrator
    | EmaCalibrator
    | PercentileCalibrator
    | MseCalibrator
    | SqnrCalibrator
    | EntropyCalibrator
    | ImportedCalibrator
    | ClipCalibrator,
    Field(discriminator="kind"),
]


OF_ACTIVATIONS = ("ema", "percentile", "entropy")
"""Calibrators of which nothing but ``weights`` has to do with weights."""


class Calibration(Section):
    """Rows that calibration observes."""

    samples: int = Field(default=512, ge=1)
    """Rows of the train split, drawn by ``seed``."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch."""
    weights: Literal["float", "quantized"] = "float"
    """Weights of the model that is observed; quantized ones have their ranges from the calibrator."""
    padding: Literal["masked", "batch", "max_length"] = "masked"
    """Whether padding is left out of the statistics, and of ranges that move in training; or counts, in
    batches padded to their longest row, or to ``task.max_length``. Where it counts, rows of any length
    share a batch."""
