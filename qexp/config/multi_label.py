"""Section of a task whose rows have any number of labels each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from qexp.config.base import Section, refuse_unused
from qexp.config.task import Task

DEFAULT_METRICS = ("f1_micro", "f1_macro", "subset_accuracy")
"""Metrics of a task that leaves them open."""
LABELS = "labels"
"""Default name of the column with the list of labels."""


class LabelDecoding(Section):
    """Decision on each label from its logit: yes where the probability, its sigmoid, exceeds a threshold."""

    thresholds: tuple[float, ...] = ()
    """Threshold of each label, in the order of ``labels``, between 0 and 1; empty is 0.5 for each."""
    fit: Literal["none", "fp32", "each"] = "none"
    """``fp32`` chooses the thresholds of the FP32 model for the largest F1 of each label on rows that are not
    trained on, and uses them for every model of the run; ``each`` chooses them anew for each model."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the train split that ``fit`` takes, on which nothing is trained or calibrated."""

    @model_validator(mode="after")
    def _thresholds_are_probabilities(self) -> Self:
        for threshold in self.thresholds:
            if not 0 < threshold < 1:
                raise ValueError(f"thresholds: {threshold:g} is no probability between 0 and 1")
        return self

    @model_validator(mode="after")
    def _held_out_rows_are_read(self) -> Self:
        if self.fit != "none" and self.thresholds:
            raise ValueError(f"thresholds={list(self.thresholds)} with fit={self.fit}: give one of the two")
        if self.fit == "none":
            refuse_unused(self, ["held_out"], "fit=none", "fit=fp32 or fit=each")
        return self


class MultiLabelTask(Task):
    """Any number of labels, none included, for a text or a pair of texts."""

    kind: Literal["multi_label"]
    """Tag of the section."""
    text: tuple[str, ...] = Field(min_length=1, max_length=2)
    """Columns with the text, one or two."""
    label: str | None = LABELS
    """Column with the list of a row's labels; null where each of ``labels`` has a column of 0 and 1."""
    labels: tuple[str, ...] = ()
    """Names of the labels in the order of the outputs; empty takes those of the train split."""
    search: LabelDecoding = LabelDecoding()
    """How labels are read off the logits."""

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        if self.label is None and not self.labels:
            raise ValueError("labels: empty with label=null; name the columns with data.label=[NAME,…]")
        if len({label.lower() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels: each label has a name of its own, got {list(self.labels)}")
        count = len(self.search.thresholds)
        if self.labels and count not in (0, len(self.labels)):
            raise ValueError(f"search.thresholds: {count} for {len(self.labels)} labels; give one for each")
        return self

    @property
    def outputs(self) -> int:
        """Width of the head."""
        return len(self.labels)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Threshold of each label."""
        return self.search.thresholds or (0.5,) * len(self.labels)

    @property
    def chooses_decoding(self) -> bool:
        return self.search.fit != "none"

    @property
    def without_decoding(self) -> Self:
        """The task with default settings for decoding."""
        return self.model_copy(update={"search": LabelDecoding()})

    def decided_by(self, thresholds: Sequence[float]) -> Self:
        """Return the task with these thresholds, with nothing left to choose."""
        return self.model_copy(update={"search": LabelDecoding(thresholds=tuple(thresholds))})
