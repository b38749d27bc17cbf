"""What is read of a row to predict, and told of it, for each kind of task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts.types import Tokens
from qexp.config import QuestionTask, Task, TextTask, TranslationTask
from qexp.data.tokenization.references import read_reading
from qexp.tasks.base import Predictions, Run
from qexp.tasks.classification import Texts
from qexp.tasks.question_answering import Questions
from qexp.tasks.translation import Translations

Move = Callable[..., None]
Columns = dict[str, Any]
"""Predictions by name, a value for each row; null where a logit was no number."""
BROKEN = "broken"
"""Count of rows, or of windows, with logits that are no numbers."""


@dataclass(frozen=True)
class Asked:
    """Rows that are tokenized and wait for their predictions."""

    tokens: Tokens
    split: str
    run: Run
    batch_size: int
    move: Move
    facts: Counter[str]
    """Where :data:`BROKEN` is counted."""


@dataclass(frozen=True)
class Kind:
    """What a kind of task reads and tells."""

    columns: Callable[[Any], tuple[str, ...]]
    """Columns with the texts of a row."""
    gold: Callable[[Any, int], Columns]
    """What stands in the place of the right answers, which nobody knows, of so many rows."""
    tell: Callable[[Any, Asked], Columns]
    """Runs the model."""


def _tell_texts(task: TextTask, asked: Asked) -> Columns:
    found = Texts(task).predict(asked.run, asked.tokens, asked.split, None, asked.move, asked.batch_size)
    asked.facts[BROKEN] += found.broken
    fine = np.isfinite(found.logits).all(axis=1)
    if task.kind == "regression":
        return {"prediction": pa.array(found.predictions.astype(np.float64), mask=~fine)}
    shares = np.exp(found.logits.astype(np.float64) - found.logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    names = np.array(task.labels, object)[found.predictions]
    parts = [pa.array(column) for column in shares.T]
    probabilities = pa.StructArray.from_arrays(parts, names=list(task.labels), mask=pa.array(~fine))
    return {"prediction": pa.array(names, mask=~fine), "probabilities": probabilities}


def _tell_questions(task: QuestionTask, asked: Asked) -> Columns:
    """The answer, its share of the softmax, and where it stands in the context; of none, of none."""
    reading = read_reading(asked.tokens.split(asked.split), None)
    found = Questions(task).answers(
        asked.run, asked.tokens, asked.split, reading, asked.move, asked.batch_size
    )  # fmt: skip
    asked.facts[BROKEN] += found.broken
    given = np.array([bool(text) for text in found.texts])
    share = np.where(given, found.probabilities[:, 0], found.no_answer_probabilities)
    first, last = (pa.array(places, mask=~given) for places in found.spans[:, 0].T)
    return {"prediction": found.texts, "probability": share, "start": first, "end": last}


def _tell_translations(task: TranslationTask, asked: Asked) -> Columns:
    """The translation, and its log-probability over the length to the power of the search's penalty."""
    found: Predictions = Translations(task).predict(
        asked.run, asked.tokens, asked.split, None, asked.move, asked.batch_size
    )  # fmt: skip
    asked.facts[BROKEN] += found.broken
    scores = found.logits[:, 0].astype(np.float64)
    broken = ~np.isfinite(scores)
    return {"prediction": pa.array(found.predictions, mask=broken), "score": pa.array(scores, mask=broken)}


_NO_ANSWER = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])

KINDS: Mapping[type[Task], Kind] = {
    TextTask: Kind(
        lambda task: tuple(task.text),
        lambda task, rows: {task.label: np.zeros(rows, np.int64)},
        _tell_texts,
    ),
    QuestionTask: Kind(
        lambda task: ("question", "context"),
        lambda task, rows: {"answers": pa.array([{"text": [], "answer_start": []}] * rows, _NO_ANSWER)},
        _tell_questions,
    ),
    TranslationTask: Kind(
        lambda task: (task.source,),
        lambda task, rows: {task.target: [""] * rows},
        _tell_translations,
    ),
}
"""By class of task."""
