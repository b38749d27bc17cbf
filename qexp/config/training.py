"""Fine-tuning, and what follows calibration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qexp.config.section import Section


class NoMethod(Section):
    """Nothing is quantized: the run ends with the FP32 scores."""

    kind: Literal["none"]
    """Tag of the section."""


class Ptq(Section):
    """Post-training quantization: calibrate, then evaluate."""

    kind: Literal["ptq"]
    """Tag of the section."""


class Qat(Section):
    """Quantization-aware training: goes on from the calibrated model."""

    kind: Literal["qat"]
    """Tag of the section."""
    ranges: Literal["frozen", "learned"] = "learned"
    """Keep the calibrated ranges, or learn the scales (LSQ)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the weights; null is half the fine-tuning rate."""
    range_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the learned log-scales; null is ``learning_rate`` times 10."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the train split; null is the task's number, else 2."""
    dropout: float | None = Field(default=0.0, ge=0, lt=1)
    """Dropout while training with quantization; null keeps the model's own."""


AnyMethod = Annotated[NoMethod | Ptq | Qat, Field(discriminator="kind")]

Schedule = Literal["linear", "inverse_sqrt"]


class Training(Section):
    """FP32 fine-tuning of the pretrained model, or the training of one from scratch."""

    kind: Literal["full"] = "full"
    """Tag of the section."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    epochs: float = Field(gt=0)
    """Passes over the train split."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch, here and in quantization-aware training."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay; biases and norms are free of it."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the rate rises from 0."""
    schedule: Schedule = "linear"
    """How the rate falls after the warm-up: in a line to 0, or with the inverse square root of the step."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the mean square of gradients."""


class Finetuned(Section):
    """The checkpoint is fine-tuned already: its own head, its own order of labels."""

    kind: Literal["none"]
    """Tag of the section."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch of quantization-aware training."""
    weight_decay: float = Field(default=0.01, ge=0)
    """As in fine-tuning; for quantization-aware training."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """As in fine-tuning; for quantization-aware training."""
    schedule: Schedule = "linear"
    """As in fine-tuning; for quantization-aware training."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """As in fine-tuning; for quantization-aware training."""


AnyFinetune = Annotated[Training | Finetuned, Field(discriminator="kind")]
