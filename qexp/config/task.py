"""Sections for the task, the model and the data of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from qexp.config.base import Section, refuse_unused

Metric = Literal[
    "accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "matthews", "pearson", "spearman", "exact_match",
    "bleu", "tokenized_bleu_lc", "subset_accuracy", "f1_span", "precision_span", "recall_span",
    "token_accuracy", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10", "map",
]  # fmt: skip


METRICS_OF: Mapping[str, tuple[Metric, ...]] = {
    "classification": ("accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "matthews"),
    "regression": ("pearson", "spearman"),
    "question_answering": ("exact_match", "f1"),
    "translation": ("bleu", "tokenized_bleu_lc"),
    "multi_label": ("f1_micro", "f1_macro", "f1_weighted", "subset_accuracy"),
    "embedding": ("spearman", "pearson"),
    "retrieval": ("ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10", "map"),
    "reranking": ("ndcg_at_10", "mrr_at_10", "map"),
    "token_classification": ("f1_span", "precision_span", "recall_span", "token_accuracy"),
}
"""Metrics of each kind of task."""
OPEN_METRICS = ("classification", "multi_label")
"""Kinds of task whose metrics may be left open until the rows are known."""


class Task(Section):
    """Base of all kinds of task: a name, splits and metrics."""

    kind: str
    """Tag of the section."""
    name: str
    """Name of the data set, as the hub and the local folder spell it."""
    metrics: tuple[Metric, ...]
    """Official metrics, the one that stands for the task first. Those of :data:`OPEN_METRICS` may leave them
    open with ``[]``: accuracy, and with two classes F1; of labels micro and macro F1 and subset accuracy."""
    max_length: int = Field(default=128, ge=8)
    """Longest token sequence; what is longer is cut."""
    train: str = "train"
    """Split that is trained on; ``mnli/train`` is a split of another data set."""
    evaluation: Mapping[str, str]
    """Splits that are evaluated, by the short name that tells their scores apart; likewise."""

    @model_validator(mode="after")
    def _is_evaluated(self) -> Self:
        if not self.evaluation:
            raise ValueError("evaluation: name at least one split")
        return self

    @model_validator(mode="after")
    def _metrics_fit_kind(self) -> Self:
        kind = str(getattr(self, "kind", ""))
        if not self.metrics and kind not in OPEN_METRICS:
            raise ValueError(f"metrics: name at least one of {', '.join(METRICS_OF.get(kind, ()))}")
        allowed = METRICS_OF.get(kind, self.metrics)
        for place, metric in enumerate(self.metrics):
            if metric not in allowed:
                raise ValueError(f"metrics: {metric} is none of a {kind}; it has {', '.join(allowed)}")
            if metric in self.metrics[:place]:
                raise ValueError(f"metrics: {metric} is named twice; name each once")
        return self

    @property
    def primary(self) -> str:
        """Key of the task's primary metric in the scores."""
        return score_name(self.metrics[0], next(iter(self.evaluation)), self)

    @property
    def chooses_decoding(self) -> bool:
        """Whether a setting for decoding is chosen for a model of the run, on held-out rows."""
        return False

    @property
    def without_decoding(self) -> Self:
        """The task without the settings for decoding, on which tokens and trainings do not depend."""
        return self


class TextTask(Task):
    """Classification or regression of a text or a pair of texts."""

    kind: Literal["classification", "regression"]
    """What the head predicts: one of ``labels``, or one number in ``label_range``."""
    text: tuple[str, ...] = Field(min_length=1, max_length=2)
    """Columns with the text, one or two."""
    label: str = "label"
    """Column with the gold label."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the order of their ids; empty takes those of the train split. A regression has
    none."""
    label_range: tuple[float, float] | None = (0.0, 1.0)
    """Smallest and largest gold value of a regression, null for those of the rows; unused by a
    classification."""

    @model_validator(mode="after")
    def _labels_fit_kind(self) -> Self:
        if len(self.labels) == 1:
            raise ValueError("labels: a classification names at least two classes")
        if self.kind == "regression" and self.labels:
            raise ValueError(f"labels: a regression has none, got {self.labels}")
        if len({label.lower() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels: each class has a name of its own, got {list(self.labels)}")
        if "f1" in self.metrics and len(self.labels) > 2:
            raise ValueError(
                f"metrics: f1 is that of one class, {self.labels[1]!r}, and task.labels names "
                f"{len(self.labels)}; use f1_macro (the mean over all classes), f1_weighted, accuracy "
                "or matthews"
            )
        if self.kind == "classification":
            refuse_unused(self, ["label_range"], "kind=classification", "task.kind=regression")
        return self

    @property
    def outputs(self) -> int:
        """Width of the head: number of classes, 1 for a regression."""
        return len(self.labels) or 1

    @property
    def span(self) -> tuple[float, float]:
        """Range of the labels of a regression whose rows are known."""
        assert self.label_range is not None, "the source of the rows fills it in"
        return self.label_range


class SpanDecoding(Section):
    """Decoding of answers from start and end scores."""

    n_best: int = Field(default=20, ge=1)
    """Starts and ends that are tried in each window, and spans that are kept of each question."""
    max_answer_length: int = Field(default=30, ge=1)
    """Most tokens of an answer."""
    null_threshold: float = 0.0
    """By how much the score of "no answer" must be above the best span's for the answer to be empty; unused
    where every question has an answer (SQuAD v1.1)."""


class QuestionTask(Task):
    """Extractive question answering (SQuAD): the span of a context that answers a question, or none."""

    kind: Literal["question_answering"]
    """Tag of the section."""
    unanswerable: bool = False
    """Whether a question may have no answer (SQuAD v2.0)."""
    doc_stride: int = Field(default=128, ge=0)
    """Tokens of the context that two neighbouring windows share."""
    max_question: int = Field(default=64, ge=1)
    """Longest question in tokens; the rest of it is cut."""
    search: SpanDecoding = SpanDecoding()
    """How answers are read off the scores."""

    @property
    def without_decoding(self) -> Self:
        """The task with default settings for decoding."""
        return self.model_copy(update={"search": SpanDecoding()})


def score_name(metric: str, split: str, task: Task) -> str:
    """Return the key of a metric in the scores: ``metric``, or ``metric@split`` with several splits."""
    return metric if len(task.evaluation) == 1 else f"{metric}@{split}"


class FromScratch(Section):
    """Transformer with random initial weights, and the vocabulary that is trained for it.

    Post-norm, ReLU, sinusoidal positions, one table for source, target and output, as in Vaswani et al.,
    "Attention Is All You Need" (2017).
    """

    vocabulary: int = Field(ge=300)
    """Tokens of the joint byte-pair vocabulary that is made of the train split, source and target."""
    layers: int = Field(ge=1)
    """Layers of the encoder, and as many of the decoder."""
    width: int = Field(ge=2)
    """Width of embeddings and hidden states."""
    heads: int = Field(ge=1)
    """Attention heads; they divide the width."""
    inner: int = Field(ge=1)
    """Width inside the feed-forward blocks."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout on embeddings and on what is added to the residual stream."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide the width of {self.width}")
        return self


class Model(Section):
    """Which pretrained model to start from, or what to start from scratch."""

    name: str
    """A model hub's name, or a local folder with ``config.json`` and ``model.safetensors``; of a model from
    scratch, what tables call it."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null is its default branch."""
    scratch: FromScratch | None = None
    """Start from random weights of this size (translations only); null starts from a checkpoint."""

    @model_validator(mode="after")
    def _nothing_to_revise(self) -> Self:
        if self.scratch is not None:
            refuse_unused(self, ["revision"], "model.scratch", "a model of the hub")
        return self


class Data(Section):
    """Where rows come from. The rows' fingerprint, not this setting, decides what can be reused."""

    source: Literal["auto", "hub", "local", "sample"] = "auto"
    """``auto`` tries local, hub and, in a single run, sample; the other three are strict."""
    root: str | None = None
    """Folder with a folder for each data set (``<task>/<split>.parquet``, ``.csv``, …); null reads the
    environment variable QEXP_DATA."""
    path: str | None = None
    """File or folder with the task's own rows, instead of ``root``; those of a single file are divided."""
    text: tuple[str, ...] | None = None
    """Columns of the file with the texts, one or two, in place of an entry for each in ``columns``."""
    label: str | tuple[str, ...] | None = None
    """Column of the file with the label, answer or translation, likewise; of ``task=multi_label`` also
    several columns of 0 and 1, one for each label."""
    separator: str | None = None
    """Characters between the labels of a row, where a file of ``task=multi_label`` has them as one text."""
    columns: Mapping[str, str | None] = Field(default_factory=dict)
    """Name in the file of each column of the task that has another one there; ``id: null`` numbers rows."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows of a single file that is evaluated, not trained on."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the hash that divides the rows of a single file."""
    max_skipped: float = Field(default=0.05, ge=0, le=1)
    """Largest share of the rows of a split that may be skipped because they cannot be used."""
    train_rows: int | None = Field(default=None, ge=1)
    """Train on that many rows, drawn by ``seed``; null is all of them."""

    @field_validator("text", mode="before")
    @classmethod
    def _one_text(cls, text: Any) -> Any:
        return [text] if isinstance(text, str) else text

    @field_validator("columns", mode="before")
    @classmethod
    def _none(cls, columns: Any) -> Any:
        return {} if columns is None else columns

    @model_validator(mode="after")
    def _files_are_local(self) -> Self:
        if self.source in ("hub", "sample"):
            for field in ("root", "path", "columns", "separator"):
                if getattr(self, field):
                    raise ValueError(
                        f"{field}={getattr(self, field)} with data={self.source}: nothing reads it; leave it "
                        "out, or choose data=local"
                    )
        return self

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.root is not None and self.path is not None:
            raise ValueError(
                f"path={self.path} with root={self.root}: rows come from one place; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _ids_alone_are_left_out(self) -> Self:
        for name, column in self.columns.items():
            if column is None and name != "id":
                raise ValueError(f"columns.{name}=null: only id may be left out; name a column of the file")
        return self
