"""Sections for fine-tuning, and for the method that follows calibration."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qexp.config.base import Section, is_none, refuse_unused
from qexp.config.quantization import GradientRule


class NoMethod(Section):
    """No quantization: the run ends with the FP32 scores."""

    kind: Literal["none"]
    """Tag of the section."""


class Ptq(Section):
    """Post-training quantization: calibrate, then evaluate."""

    kind: Literal["ptq"]
    """Tag of the section."""


class Distillation(Section):
    """Loss terms that distill the run's own FP32 model, besides the labels; a weight of 0 disables a term."""

    labels: float = Field(default=1.0, ge=0)
    """Weight of the task's own loss."""
    logits: float = Field(default=0.0, ge=0)
    """Weight of the distance of logits: Kullback-Leibler divergence, or squared error of a regression."""
    temperature: float = Field(default=2.0, gt=0)
    """What logits are divided by before they become probabilities; the loss is multiplied by its square."""
    hidden: float = Field(default=0.0, ge=0)
    """Weight of the mean squared error of hidden states, over all layers."""
    attention: float = Field(default=0.0, ge=0)
    """Weight of the Kullback-Leibler divergence of attention probabilities, over all layers."""

    similarity: float = Field(default=0.0, ge=0, exclude_if=lambda weight: not weight)
    """Weight of the Kullback-Leibler divergence of similarity distributions: of each text's cosines with the
    others of its batch, as probabilities. For tasks with a vector for each text."""
    similarity_temperature: float = Field(default=0.05, gt=0, exclude_if=lambda value: value == 0.05)
    """What cosines are divided by before they become probabilities."""

    @property
    def enabled(self) -> bool:
        """Whether any loss term uses the teacher."""
        return max(self.logits, self.hidden, self.attention, self.similarity) > 0

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.enabled and self.labels != 1:
            raise ValueError(
                f"labels={self.labels:g} without a teacher: the weight of the labels counts beside others "
                "only; raise method.distillation.logits, .hidden, .attention or .similarity, or set .labels=1"
            )
        if not self.logits:
            instead = "method.distillation.logits=1"
            refuse_unused(self, ["temperature"], "logits=0", instead)
        if not self.similarity:
            instead = "method.distillation.similarity=1"
            refuse_unused(self, ["similarity_temperature"], "similarity=0", instead)
        return self


Schedule = Literal["linear", "cosine", "inverse_sqrt"]
BatchTokens = Annotated[int | None, Field(ge=8, exclude_if=is_none)]


def _of_tokens(tokens: int) -> str:
    return f"batch_tokens={tokens}"


class ContinuedTraining(Section):
    """Training that continues from the FP32 model."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the weights; null is half the fine-tuning rate."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the train split; null is the task's number, else 2."""
    dropout: float | None = Field(default=0.0, ge=0, lt=1)
    """Dropout during this training; null keeps the model's own."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows in a batch; null is that of fine-tuning."""
    batch_tokens: BatchTokens = None
    """Padded tokens in a batch instead, as ``finetune.batch_tokens``; null is that of fine-tuning unless
    ``batch_size`` is set."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decoupled weight decay; null is that of fine-tuning."""
    warmup: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps over which the rate rises from 0; null is that of fine-tuning."""
    schedule: Schedule | Literal["continued"] | None = None
    """How the rate falls after the warm-up; null is as in fine-tuning. ``continued`` goes on from the last
    step of fine-tuning, without a warm-up, as if the two were one training."""
    distillation: Distillation = Distillation()
    """What is learned from the FP32 model."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.batch_tokens is not None:
            refuse_unused(self, ["batch_size"], _of_tokens(self.batch_tokens), "method.batch_tokens=null")
        return self


RANGE_RATE = 10
"""Default ratio of the learning rates, learned scales to weights."""


class Control(ContinuedTraining):
    """The same training without quantizers, which shows the effect of longer training and of the teacher."""

    kind: Literal["control"]
    """Tag of the section."""


class Qat(ContinuedTraining):
    """Quantization-aware training, which continues from the calibrated model."""

    kind: Literal["qat"]
    """Tag of the section."""
    ranges: Literal["frozen", "ema", "learned"] = "learned"
    """Keep the calibrated ranges; follow the batches with a moving average, and weights as they are; or learn
    the scales (LSQ)."""
    range_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the learned log-scales; null is ``learning_rate`` times 10."""
    zero_points: Literal["fixed", "learned"] = "fixed"
    """Whether learned ranges of asymmetric grids of activations learn their zero points, too (LSQ+), at the
    same rate: a share of the range."""
    range_decay: float = Field(default=0.9999, ge=0, lt=1)
    """Weight of the past in the moving average of ``ranges: ema``; each of ``machine.accumulate`` parts of a
    batch counts as one."""
    range_statistic: Literal["ends", "magnitude"] = "ends"
    """What the moving average of ``ranges: ema`` is of: the minimum and maximum, or the largest magnitude."""
    range_start: Literal["calibrated", "first_batch"] = "calibrated"
    """Where the moving average of ``ranges: ema`` starts: at the calibrated range, or at the first batch."""
    range_parameters: Literal["scale", "ends"] = "scale"
    """What ``ranges: learned`` learns: the logarithm of the scale, as LSQ does up to the logarithm, and
    ``zero_points``; or the minimum and the maximum, as AIMET does, in units of the values."""
    gradient: GradientRule = "range"
    """Which values pass their gradient straight through: those inside the range; all that round into the
    grid, up to half a step beyond it; or all."""
    recalibrate_weights: bool | Literal["each_step"] = False
    """Whether weight ranges are found anew by the calibrator, from the trained weights: at the end, or after
    each step."""
    start: Literal["finetuned", "pretrained"] = "finetuned"
    """Model that is calibrated and trained: the fine-tuned one, or the pretrained one under a new head.
    Scores of FP32 and of post-training quantization are those of the fine-tuned model in both cases."""
    head_delay: int = Field(default=0, ge=0)
    """Steps for which layers outside the base model stay in floating point."""

    @model_validator(mode="after")
    def _only_learned_ranges_learn_zero_points(self) -> Self:
        if self.zero_points == "learned" and self.ranges != "learned":
            raise ValueError(
                f"zero_points=learned with ranges={self.ranges}: zero points are learned beside scales; use "
                "method.ranges=learned, or method.zero_points=fixed"
            )
        if self.range_parameters == "ends" and self.zero_points == "learned":
            raise ValueError(
                "zero_points=learned with range_parameters=ends: a learned minimum and maximum move the zero "
                "point already; use method.zero_points=fixed, or method.range_parameters=scale"
            )
        return self

    @model_validator(mode="after")
    def _only_ranges_that_move_have_numbers_for_it(self) -> Self:
        because = f"ranges={self.ranges}"
        if self.ranges != "ema":
            unused = ["range_decay", "range_statistic", "range_start"]
            refuse_unused(self, unused, because, "method.ranges=ema")
        if self.ranges != "learned":
            refuse_unused(self, ["range_parameters"], because, "method.ranges=learned")
        followed = self.learning_rate and RANGE_RATE * self.learning_rate  # what Experiment fills in
        if self.ranges != "learned" and self.range_learning_rate not in (None, followed):
            raise ValueError(
                f"range_learning_rate={self.range_learning_rate} with {because}: nothing reads it; "
                "leave it null, or choose method.ranges=learned"
            )
        return self

    @model_validator(mode="after")
    def _gradients_and_weights_go_with_ranges(self) -> Self:
        if self.ranges == "learned" and self.gradient == "all":
            raise ValueError(
                "gradient=all with ranges=learned: a clipped value moves the range, not itself; use "
                "method.gradient=range or grid, or method.ranges=frozen or ema"
            )
        if self.recalibrate_weights == "each_step" and self.ranges != "frozen":
            raise ValueError(
                f"recalibrate_weights=each_step with ranges={self.ranges}: there, each step moves the ranges "
                "of weights already; use method.ranges=frozen, or method.recalibrate_weights=false or true"
            )
        return self


AnyMethod = Annotated[NoMethod | Ptq | Qat | Control, Field(discriminator="kind")]


class Finetune(Section):
    """FP32 fine-tuning of the pretrained model, or the training of one from scratch."""

    kind: Literal["full"] = "full"
    """Tag of the section."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    epochs: float = Field(gt=0)
    """Passes over the train split."""
    max_steps: int | None = Field(default=None, ge=1, exclude_if=is_none)
    """At most that many optimizer steps; null is no limit."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch, here and in quantization-aware training."""
    batch_tokens: BatchTokens = None
    """Padded tokens in a batch instead of rows: rows of similar length are added as long as their number
    times the tokens of the longest stays within it. Of a pair to translate, the longer side counts."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay; biases and norms are free of it."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the rate rises from 0."""
    warmup_steps: int | None = Field(default=None, ge=1, exclude_if=is_none)
    """Steps over which the rate rises, instead of a share of them; null is ``warmup``, which a training that
    follows has in any case."""
    schedule: Schedule = "linear"
    """How the rate falls after the warm-up: in a line or half a cosine to 0, or with the inverse square root
    of the step."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the mean square of gradients."""
    holdout: float | int | None = Field(default=None, gt=0, exclude_if=is_none)
    """Rows of the train split that are not trained on but choose the weights to keep, drawn by the seed: a
    share below 1, or a number. Null is none, or 0.05 with ``patience`` or ``average_of=best``."""
    evaluate_steps: int | None = Field(default=None, ge=1, exclude_if=is_none)
    """Steps between two evaluations on these rows, or between two weights of an average; null is an epoch.
    The last step counts in any case."""
    patience: int | None = Field(default=None, ge=1, exclude_if=is_none)
    """End the training after that many evaluations on these rows without a better score; null never does."""
    average: int | None = Field(default=None, ge=2, exclude_if=is_none)
    """Keep the mean of the weights after that many epochs, or evaluations; null keeps one of them."""
    average_of: Literal["last", "best"] = Field(default="last", exclude_if=lambda value: value == "last")
    """Which weights are averaged: the last ones, or those with the best scores."""

    @model_validator(mode="after")
    def _nothing_unread(self) -> Self:
        if self.batch_tokens is not None:
            refuse_unused(self, ["batch_size"], _of_tokens(self.batch_tokens), "finetune.batch_tokens=null")
        if self.average is None:
            refuse_unused(self, ["average_of"], "average=null", "finetune.average=5")
        if self.average is None and self.holdout is None:
            instead = "finetune.holdout=0.05 or finetune.average=5"
            refuse_unused(self, ["evaluate_steps"], "holdout=null and average=null", instead)
        return self

    @model_validator(mode="after")
    def _rows_to_choose_by(self) -> Self:
        best = "average_of=best" if self.average_of == "best" else None
        needing = best if self.patience is None else f"patience={self.patience}"
        if needing and self.holdout is None:
            raise ValueError(
                f"{needing} with holdout=null: no rows tell which weights are better; set "
                "finetune.holdout=0.05"
            )
        if self.holdout is not None and self.holdout >= 1 and self.holdout != int(self.holdout):
            raise ValueError(
                f"holdout={self.holdout}: allowed is a share below 1, such as 0.05, or a whole number of rows"
            )
        return self


class NoFinetune(Section):
    """No fine-tuning: the checkpoint is fine-tuned, with its own head and its own order of labels."""

    kind: Literal["none"]
    """Tag of the section."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch of quantization-aware training."""
    batch_tokens: BatchTokens = None
    """Padded tokens in a batch instead, as in fine-tuning; for quantization-aware training."""
    weight_decay: float = Field(default=0.01, ge=0)
    """As in fine-tuning; for quantization-aware training."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """As in fine-tuning; for quantization-aware training."""
    schedule: Schedule = "linear"
    """As in fine-tuning; for quantization-aware training."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """As in fine-tuning; for quantization-aware training."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.batch_tokens is not None:
            refuse_unused(self, ["batch_size"], _of_tokens(self.batch_tokens), "finetune.batch_tokens=null")
        return self


AnyFinetune = Annotated[Finetune | NoFinetune, Field(discriminator="kind")]
