"""Columns that are read, and predictions that are computed, for each kind of task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts.types import Tokens
from qexp.config import (
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    RerankingTask,
    Task,
    TextTask,
    TokenTask,
    TranslationTask,
)
from qexp.data.tokenization.references import read_reading
from qexp.data.tokenization.texts import TokenSplit
from qexp.errors import ConfigError
from qexp.models.inference import split_logits
from qexp.tasks.base import ForwardFn, Predictions, TaskAdapter
from qexp.tasks.classification import TextAdapter
from qexp.tasks.embedding import EmbeddingAdapter
from qexp.tasks.multi_label import MultiLabelAdapter
from qexp.tasks.question_answering import QuestionAdapter
from qexp.tasks.reranking import RerankingAdapter
from qexp.tasks.token_classification import TokenAdapter
from qexp.tasks.translation import TranslationAdapter

Move = Callable[..., None]
Columns = dict[str, Any]
"""Columns by name, a value per row; predictions are null where a logit is not finite."""
BROKEN = "broken"
"""Name of the count of rows, or windows, with logits that are not finite."""


@dataclass(frozen=True)
class TokenizedRows:
    """Tokenized rows and the settings to predict them with."""

    tokens: Tokens
    split: str
    run: ForwardFn
    batch_size: int
    advance: Move
    facts: Counter[str]
    """Counter to which :data:`BROKEN` rows are added."""


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


def _predictions(adapter: TaskAdapter, rows: TokenizedRows) -> Predictions:
    """Return what an adapter predicts of all rows, and count those whose logits are not finite."""
    result = adapter.predict(
        rows.run, rows.tokens, rows.split, rows=None, advance=rows.advance, batch_size=rows.batch_size
    )
    rows.facts[BROKEN] += result.broken
    return result


def _predict_texts(task: TextTask, rows: TokenizedRows) -> Columns:
    result = _predictions(TextAdapter(task), rows)
    finite = np.isfinite(result.logits).all(axis=1)
    if task.kind == "regression":
        return {"prediction": pa.array(result.predictions.astype(np.float64), mask=~finite)}
    shares = np.exp(result.logits.astype(np.float64) - result.logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    names = np.array(task.labels, object)[result.predictions]
    parts = [pa.array(column) for column in shares.T]
    probabilities = pa.StructArray.from_arrays(parts, names=list(task.labels), mask=pa.array(~finite))
    return {"prediction": pa.array(names, mask=~finite), "probabilities": probabilities}


def _predict_label_sets(task: MultiLabelTask, rows: TokenizedRows) -> Columns:
    """Return the names of a row's labels, and the probability of each label."""
    result = _predictions(MultiLabelAdapter(task), rows)
    finite = np.asarray(np.isfinite(result.logits).all(axis=1))
    names = [
        [task.labels[each] for each in ids] if known else None
        for ids, known in zip(result.predictions, finite, strict=True)
    ]
    shares = 1 / (1 + np.exp(-result.logits.astype(np.float64)))
    parts = [pa.array(column) for column in shares.T]
    probabilities = pa.StructArray.from_arrays(parts, names=list(task.labels), mask=pa.array(~finite))
    return {"prediction": pa.array(names, pa.list_(pa.string())), "probabilities": probabilities}


def _predict_tags(task: TokenTask, rows: TokenizedRows) -> Columns:
    """Return the words of each row and the tag of each."""
    result = _predictions(TokenAdapter(task), rows)
    broken = set(result.rows[~np.isfinite(result.logits).all(axis=1)].tolist())
    tags = [None if row in broken else list(each) for row, each in enumerate(result.predictions)]
    return {"prediction": pa.array(tags, pa.list_(pa.string()))}


def _predict_questions(task: QuestionTask, rows: TokenizedRows) -> Columns:
    """Return the answer, its probability, and its character range in the context.

    Where the answer is empty, the probability is the one of no answer and the range is null.
    """
    references = read_reading(rows.tokens.split(rows.split), None)
    answers = QuestionAdapter(task).answers(
        rows.run,
        rows.tokens,
        name=rows.split,
        reading=references,
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
    result = _predictions(TranslationAdapter(task), rows)
    scores = result.logits[:, 0].astype(np.float64)
    broken = ~np.isfinite(scores)
    return {"prediction": pa.array(result.predictions, mask=broken), "score": pa.array(scores, mask=broken)}


def _predict_similarities(task: EmbeddingTask, rows: TokenizedRows) -> Columns:
    """Return the cosine of the two embeddings of each row."""
    result = _predictions(EmbeddingAdapter(task), rows)
    return {"prediction": pa.array(result.predictions, mask=~np.isfinite(result.logits).all(axis=1))}


def _predict_relevance(task: RerankingTask, rows: TokenizedRows) -> Columns:
    """Return the score of each pair, the sigmoid of its logit, and the logit."""
    logits = _predictions(RerankingAdapter(task), rows).logits[:, 0].astype(np.float64)
    broken = ~np.isfinite(logits)
    scores = 1 / (1 + np.exp(-logits))
    return {"prediction": pa.array(scores, mask=broken), "logit": pa.array(logits, mask=broken)}


def _predict_vectors(task: EmbeddingTask, rows: TokenizedRows) -> Columns:
    """Return the embedding of the only text of each row."""
    vectors = split_logits(
        rows.run,
        TokenSplit.load(rows.tokens.split(rows.split)),
        None,
        pad_id=rows.tokens.pad_id,
        advance=rows.advance,
        batch_size=rows.batch_size,
    )
    broken = ~np.isfinite(vectors).all(axis=1)
    rows.facts[BROKEN] += int(broken.sum())
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1], mask=pa.array(broken))
    return {"embedding": column.cast(pa.list_(pa.float32()))}


_NO_ANSWER = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])

KINDS: Mapping[type[Task], TaskPredictions] = {
    EmbeddingTask: TaskPredictions(
        lambda task: task.text,
        lambda task, rows: {task.label: np.zeros(rows)},
        _predict_similarities,
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


def kind_of(task: Task, *, vectors: bool) -> TaskPredictions:
    """Return inputs and predictions of a task; with ``vectors``, an embedding of one text for each row.

    Raises:
        ConfigError: ``vectors`` of another kind of task.
    """
    kind = KINDS[type(task)]
    if not vectors:
        return kind
    if not isinstance(task, EmbeddingTask):
        raise ConfigError(
            f"--vectors: task={task.name} of this run is a {task.kind}, and only an embedding has vectors; "
            "leave --vectors out, or name a run of task=embedding"
        )
    return replace(kind, columns=lambda task: task.text[:1], tell=_predict_vectors)
