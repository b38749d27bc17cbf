"""Columns that are read, and predictions that are computed, for each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import (
    BiEncoderTask,
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    RerankingTask,
    RetrievalTask,
    Task,
    TextTask,
    TokenTask,
    TranslationTask,
)
from qexp.data.batches import ArrayForwardFn
from qexp.data.metrics.label_sets import cuts_of, tuples
from qexp.data.metrics.score_shift import sigmoid
from qexp.data.tokenization.references import read_reading
from qexp.data.tokenization.texts import TokenSplit
from qexp.data.tokenization.words import WordSplit
from qexp.data.window_answers import window_answers
from qexp.data.word_predictions import broken_rows, tags_of, word_logits
from qexp.errors import ConfigError
from qexp.prediction.engine_logits import engine_logits
from qexp.prediction.tokenized_rows import BROKEN, Columns, TokenizedRows
from qexp.prediction.vectors import predict_rankings, predict_similarities, predict_vectors
from qexp.tasks import adapter_for

if TYPE_CHECKING:
    from qexp.tasks.base import Array, ForwardFn, Predictions


@dataclass(frozen=True)
class TaskPredictions:
    """Inputs and predictions of a kind of task; the first argument of each function is the task."""

    columns: Callable[[Any], tuple[str, ...]]
    """Function that returns the columns with the texts of a row."""
    gold: Callable[[Any, int], Columns]
    """Function from a number of rows to placeholders for their gold values, which are unknown."""
    tell: Callable[[Any, TokenizedRows], Columns]
    """Function that runs the model and returns the columns of predictions."""
    words: bool = False
    """Whether a row is a list of words; a text is split at blanks."""


def _predictions(task: Task, rows: TokenizedRows) -> Predictions:
    """Return what the task's adapter predicts of all rows, and count those whose logits are not finite."""
    result = adapter_for(task).predict(
        rows.run, rows.tokens, rows.split, rows=None, advance=rows.advance, batch_size=rows.batch_size
    )
    rows.facts[BROKEN] += result.broken
    return result


def _logits(task: Task, rows: TokenizedRows) -> Array:
    """Return the logits of all rows, and count those whose logits are not finite."""
    if rows.engine is None:
        return _predictions(task, rows).logits
    split = TokenSplit.load(rows.tokens.split(rows.split))
    pad_id, size = rows.tokens.pad_id, rows.batch_size
    logits = engine_logits(rows.engine, split, pad_id=pad_id, advance=rows.advance, batch_size=size)
    rows.facts[BROKEN] += int((~np.isfinite(logits)).any(axis=1).sum())
    return logits


def _on_arrays(run: ForwardFn) -> ArrayForwardFn:
    from qexp.models.inference import on_arrays

    return on_arrays(run)


def _predict_texts(task: TextTask, rows: TokenizedRows) -> Columns:
    logits = _logits(task, rows)
    finite = np.isfinite(logits).all(axis=1)
    if task.kind == "regression":
        return {"prediction": pa.array(logits[:, 0].astype(np.float64), mask=~finite)}
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    names = np.array(task.labels, object)[logits.argmax(axis=1)]
    parts = [pa.array(column) for column in shares.T]
    probabilities = pa.StructArray.from_arrays(parts, names=list(task.labels), mask=pa.array(~finite))
    return {"prediction": pa.array(names, mask=~finite), "probabilities": probabilities}


def _predict_label_sets(task: MultiLabelTask, rows: TokenizedRows) -> Columns:
    """Return the names of a row's labels, and the probability of each label."""
    logits = _logits(task, rows).astype(np.float64)
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    names = [
        [task.labels[each] for each in ids] if known else None
        for ids, known in zip(tuples(logits - cuts_of(task.thresholds) > 0), finite, strict=True)
    ]
    shares = sigmoid(logits)
    parts = [pa.array(column) for column in shares.T]
    probabilities = pa.StructArray.from_arrays(parts, names=list(task.labels), mask=pa.array(~finite))
    return {"prediction": pa.array(names, pa.list_(pa.string())), "probabilities": probabilities}


def _predict_tags(task: TokenTask, rows: TokenizedRows) -> Columns:
    """Return the words of each row and the tag of each."""
    split = WordSplit.load(rows.tokens.split(rows.split))
    if rows.engine is None:
        logits = _predictions(task, rows).logits
    else:
        how: dict[str, Any] = {"outputs": task.outputs, "pad_id": rows.tokens.pad_id}
        how |= {"advance": rows.advance, "batch_size": rows.batch_size}
        logits = word_logits(rows.engine, split, None, **how)
        rows.facts[BROKEN] += len(broken_rows(logits, split.kept))
    broken, found = broken_rows(logits, split.kept), tags_of(task, split, split.kept, logits)
    tags = [None if row in broken else list(each) for row, each in enumerate(found)]
    return {"prediction": pa.array(tags, pa.list_(pa.string()))}


def _predict_questions(task: QuestionTask, rows: TokenizedRows) -> Columns:
    """Return the answer, its probability, and its character range in the context.

    Where the answer is empty, the probability is the one of no answer and the range is null.
    """
    folder = rows.tokens.split(rows.split)
    answers = window_answers(
        rows.engine or _on_arrays(rows.run),
        task,
        folder,
        read_reading(folder, None),
        pad_id=rows.tokens.pad_id,
        advance=rows.advance,
        batch_size=rows.batch_size,
    )
    rows.facts[BROKEN] += answers.broken
    answered = np.array([bool(text) for text in answers.texts])
    probability = np.where(answered, answers.probabilities[:, 0], answers.no_answer_probabilities)
    first, last = (pa.array(places, mask=~answered) for places in answers.spans[:, 0].T)
    return {"prediction": answers.texts, "probability": probability, "start": first, "end": last}


def _predict_translations(task: TranslationTask, rows: TokenizedRows) -> Columns:
    """Return the translation and its score: log-probability / length ** penalty of the search."""
    result = _predictions(task, rows)
    scores = result.logits[:, 0].astype(np.float64)
    broken = ~np.isfinite(scores)
    return {"prediction": pa.array(result.predictions, mask=broken), "score": pa.array(scores, mask=broken)}


def _predict_relevance(task: RerankingTask, rows: TokenizedRows) -> Columns:
    """Return the score of each pair, the sigmoid of its logit, and the logit."""
    logits = _logits(task, rows)[:, 0].astype(np.float64)
    broken = ~np.isfinite(logits)
    scores = sigmoid(logits)
    return {"prediction": pa.array(scores, mask=broken), "logit": pa.array(logits, mask=broken)}


_NO_ANSWER = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])

KINDS: Mapping[type[Task], TaskPredictions] = {
    EmbeddingTask: TaskPredictions(
        lambda task: task.text,
        lambda task, rows: {task.label: np.zeros(rows)},
        predict_similarities,
    ),
    TextTask: TaskPredictions(
        lambda task: tuple(task.text),
        lambda task, rows: {task.label: np.zeros(rows, np.int64)},
        _predict_texts,
    ),
    MultiLabelTask: TaskPredictions(
        lambda task: tuple(task.text),
        lambda task, rows: {"label": pa.array([[]] * rows, pa.list_(pa.int64()))},
        _predict_label_sets,
    ),
    QuestionTask: TaskPredictions(
        lambda task: ("question", "context"),
        lambda task, rows: {"answers": pa.array([{"text": [], "answer_start": []}] * rows, _NO_ANSWER)},
        _predict_questions,
    ),
    RerankingTask: TaskPredictions(
        lambda task: task.text,
        lambda task, rows: {},
        _predict_relevance,
    ),
    RetrievalTask: TaskPredictions(
        lambda task: ("text",),
        lambda task, rows: {},
        predict_rankings,
    ),
    TokenTask: TaskPredictions(
        lambda task: task.text,
        lambda task, rows: {},
        _predict_tags,
        words=True,
    ),
    TranslationTask: TaskPredictions(
        lambda task: (task.source,),
        lambda task, rows: {task.target: [""] * rows},
        _predict_translations,
    ),
}
"""Inputs and predictions by class of task."""


def kind_of(task: Task, *, vectors: bool, documents: bool = False) -> TaskPredictions:
    """Return inputs and predictions of a task; with ``vectors``, a vector of one text for each row.

    Raises:
        ConfigError: ``vectors`` of another kind of task, or ``documents`` without vectors of a retrieval.
    """
    kind = KINDS[type(task)]
    if documents and not (vectors and isinstance(task, RetrievalTask)):
        raise ConfigError(
            f"--documents with task={task.name}: it says that vectors of a retrieval are those of "
            "documents, not of queries; add --vectors, or leave it out"
        )
    if not vectors:
        return kind
    if not isinstance(task, BiEncoderTask):
        raise ConfigError(
            f"--vectors: task={task.name} of this run is a {task.kind}, and only an embedding or a retrieval "
            "has vectors; leave --vectors out, or name such a run"
        )
    return replace(kind, columns=lambda task: kind.columns(task)[:1], tell=predict_vectors)
