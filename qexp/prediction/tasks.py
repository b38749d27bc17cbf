"""Columns that are read, and predictions that are computed, for each kind of task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts.types import Tokens
from qexp.config import (
    CORPUS,
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
from qexp.data.metrics.corpus_ranking import FIRST
from qexp.data.metrics.score_shift import sigmoid
from qexp.data.tokenization.references import read_reading
from qexp.data.tokenization.retrieval import document_ids
from qexp.data.tokenization.texts import TokenSplit
from qexp.errors import ConfigError
from qexp.prediction.engine_logits import ArrayForwardFn, engine_logits
from qexp.tasks import adapter_for

if TYPE_CHECKING:
    from qexp.tasks.base import Array, ForwardFn, Predictions

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
    of_run: Tokens
    """Tokens of the run's own rows, or the folder of a published model, which has none."""
    embedded: dict[str, Array]
    """Vectors of the run's corpus by its name, once they are computed; shared by all parts of an input."""
    engine: ArrayForwardFn | None = None
    """Engine that takes the place of ``run`` and needs no torch; None without one."""


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
    result = _predictions(task, rows)
    finite = np.asarray(np.isfinite(result.logits).all(axis=1))
    names = [
        [task.labels[each] for each in ids] if known else None
        for ids, known in zip(result.predictions, finite, strict=True)
    ]
    shares = sigmoid(result.logits.astype(np.float64))
    parts = [pa.array(column) for column in shares.T]
    probabilities = pa.StructArray.from_arrays(parts, names=list(task.labels), mask=pa.array(~finite))
    return {"prediction": pa.array(names, pa.list_(pa.string())), "probabilities": probabilities}


def _predict_tags(task: TokenTask, rows: TokenizedRows) -> Columns:
    """Return the words of each row and the tag of each."""
    result = _predictions(task, rows)
    broken = set(result.rows[~np.isfinite(result.logits).all(axis=1)].tolist())
    tags = [None if row in broken else list(each) for row, each in enumerate(result.predictions)]
    return {"prediction": pa.array(tags, pa.list_(pa.string()))}


def _predict_questions(task: QuestionTask, rows: TokenizedRows) -> Columns:
    """Return the answer, its probability, and its character range in the context.

    Where the answer is empty, the probability is the one of no answer and the range is null.
    """
    references = read_reading(rows.tokens.split(rows.split), None)
    from qexp.tasks.question_answering import QuestionAdapter

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
    result = _predictions(task, rows)
    scores = result.logits[:, 0].astype(np.float64)
    broken = ~np.isfinite(scores)
    return {"prediction": pa.array(result.predictions, mask=broken), "score": pa.array(scores, mask=broken)}


def _predict_similarities(task: EmbeddingTask, rows: TokenizedRows) -> Columns:
    """Return the cosine of the two embeddings of each row."""
    result = _predictions(task, rows)
    return {"prediction": pa.array(result.predictions, mask=~np.isfinite(result.logits).all(axis=1))}


def _predict_relevance(task: RerankingTask, rows: TokenizedRows) -> Columns:
    """Return the score of each pair, the sigmoid of its logit, and the logit."""
    logits = _logits(task, rows)[:, 0].astype(np.float64)
    broken = ~np.isfinite(logits)
    scores = sigmoid(logits)
    return {"prediction": pa.array(scores, mask=broken), "logit": pa.array(logits, mask=broken)}


def _predict_rankings(task: RetrievalTask, rows: TokenizedRows) -> Columns:
    """Return the first documents of the run's corpus for each query, best first, and their cosines.

    Raises:
        ConfigError: There is no corpus, as in a published folder.
    """
    folder = rows.of_run.split(CORPUS)
    if not folder.is_dir():
        raise ConfigError(
            f"task={task.name}: a published folder holds no corpus to rank; name the run, or take vectors of "
            "the rows with --vectors"
        )
    if CORPUS not in rows.embedded:
        rows.embedded[CORPUS] = _vectors(rows, folder, advance=lambda *_: None)
    from qexp.tasks.retrieval import RetrievalAdapter

    vectors, broken = _row_vectors(rows)
    found = RetrievalAdapter(task).ranked(vectors, rows.embedded[CORPUS], document_ids(folder))
    firsts: dict[str, tuple[Sequence[Any], pa.DataType]] = {
        "prediction": (found.documents, pa.list_(pa.string())),
        "score": (found.scores, FLOATS),
    }
    return {
        name: pa.array(
            [None if lost else row[:FIRST] for row, lost in zip(rows_of, broken, strict=True)], kind
        )
        for name, (rows_of, kind) in firsts.items()
    }


def _vectors(rows: TokenizedRows, folder: Path, advance: Move) -> Array:
    """Return the vectors of the texts of a tokenized split, float32 [texts, D]."""
    from qexp.models.inference import split_logits

    split = TokenSplit.load(folder)
    pad_id, size = rows.tokens.pad_id, rows.batch_size
    return split_logits(rows.run, split, None, pad_id=pad_id, advance=advance, batch_size=size)


def _row_vectors(rows: TokenizedRows) -> tuple[Array, Array]:
    """Return the vectors of the rows, and which of them are not finite, which are counted."""
    vectors = _vectors(rows, rows.tokens.split(rows.split), rows.advance)
    broken = np.asarray(~np.isfinite(vectors).all(axis=1))
    rows.facts[BROKEN] += int(broken.sum())
    return vectors, broken


def _predict_vectors(task: BiEncoderTask, rows: TokenizedRows) -> Columns:
    """Return the vector of the only text of each row."""
    vectors, broken = _row_vectors(rows)
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1], mask=pa.array(broken))
    return {"embedding": column.cast(FLOATS)}


FLOATS = pa.list_(pa.float32())
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
    RetrievalTask: TaskPredictions(
        lambda task: ("text",),
        lambda task, rows: {},
        _predict_rankings,
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
    return replace(kind, columns=lambda task: kind.columns(task)[:1], tell=_predict_vectors)
