"""Section of a task whose texts are embedded in vectors."""

from __future__ import annotations

from typing import Literal

from qexp.config.task import Task


class EmbeddingTask(Task):
    """Embedding of texts: the cosine of the vectors of two texts stands for how alike they are."""

    kind: Literal["embedding"]
    """Tag of the section."""
    text: tuple[str, str]
    """Columns with the two texts that are compared; each text has a vector of its own."""
    label: str = "label"
    """Column with the gold similarity, any number; only its order counts for Spearman's coefficient. Training
    does not read it."""
    pooling: Literal["mean", "cls"] = "mean"
    """Vector of a text, before it is divided by its norm: the mean of the last hidden states of its tokens,
    without padding, or that of the first token."""
