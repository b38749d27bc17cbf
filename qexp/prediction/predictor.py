"""Predictor that runs a model of a run, in torch or in another runtime, on new rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts.types import FACTS, Tokens
from qexp.config import CORPUS, Task
from qexp.data.batches import ArrayForwardFn
from qexp.data.tokenization.known_ids import check_ids, embedding_rows
from qexp.data.tokenization.prepare import PREPARE
from qexp.data.tokenization.saved import saved_tokenizer
from qexp.errors import DataError
from qexp.prediction.readers import Row
from qexp.prediction.tasks import kind_of
from qexp.prediction.tokenized_rows import BROKEN, Move, TokenizedRows

if TYPE_CHECKING:
    from qexp.tasks.base import Array, ForwardFn

TORCH = "torch"
"""Runtime that evaluated the run: torch, with fake quantization in floating point."""
INDEX = "index"
"""Column with the row number in the input, from 0."""
WORDS = "words"
"""Column with the words of a row, where each has a prediction."""


class PredictedModel(Protocol):
    """What predictions need of a model, in the store or published, besides its logits."""

    @property
    def task(self) -> Task: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def columns(self) -> Mapping[str, str | None]:
        """Names that columns of the task have in the run's own file."""

    @property
    def config(self) -> Path:
        """File of the model's configuration."""


class Predictor:
    """Model of a run that predicts the parts of an input in order.

    Args:
        model: Model of the run, or of a published folder.
        run: Function that computes its logits; None with an engine.
        batch_size: Rows, or windows, per batch.
        keep: Whether the input's own columns are kept, before the predictions.
        engine: Engine that computes its logits without torch; None without one.
        vectors: Whether to predict the vector of one text for each row, not cosines or rankings.
        documents: Whether these vectors are those of documents of a retrieval, not of queries.

    Raises:
        ConfigError: ``vectors`` of a task without vectors, or ``documents`` of other than vectors.
    """

    def __init__(
        self,
        model: PredictedModel,
        run: ForwardFn | None,
        *,
        batch_size: int,
        keep: bool,
        engine: ArrayForwardFn | None = None,
        vectors: bool = False,
        documents: bool = False,
    ) -> None:
        self.facts: Counter[str] = Counter()
        """Numbers of rows that were cut, skipped or broken, by the names that tokenization gives them."""
        self._model, self._run, self._batch_size, self._keep = model, run or _no_forward, batch_size, keep
        self._engine = engine
        self._tokenizer = _tokenizer(model.tokens.tokenizer, light=engine is not None)
        self._kind = kind_of(model.task, vectors=vectors, documents=documents)
        self._split = CORPUS if documents else next(iter(model.task.evaluation.values()))
        self._embedded: dict[str, Array] = {}
        self._embeddings = embedding_rows(model.config)
        self._done = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that hold the texts of a row, with the names that they have in the run's own file."""
        names = self._model.columns
        return tuple(names.get(name) or name for name in self._kind.columns(self._model.task))

    def predict(self, rows: Sequence[Row], advance: Move) -> pa.Table:
        """Return index, own columns of the rows if they are kept, and predictions, in row order."""
        with TemporaryDirectory(prefix="qexp-predict-") as folder:
            tokens = self._tokens(rows, Path(folder))
            tokenized = TokenizedRows(
                tokens,
                self._split,
                run=self._run,
                batch_size=self._batch_size,
                advance=advance,
                facts=self.facts,
                of_run=self._model.tokens,
                embedded=self._embedded,
                engine=self._engine,
            )
            predictions = self._kind.tell(self._model.task, tokenized)
        if self._kind.words and not (self._keep and WORDS in self.columns):
            predictions = {WORDS: self._lists(rows), **predictions}
        index = np.arange(self._done, self._done + len(rows))
        self._done += len(rows)
        table = pa.table({INDEX: index, **predictions})
        return table if not self._keep else _with_own_columns(rows, table)

    def notes(self) -> list[str]:
        """Return sentences on rows that were cut, as in training, and on rows that were skipped and why."""
        task, counts = self._model.task, {**self.facts}
        counts.pop("windows", None)
        counts.pop("truncated_target", None)
        cut = f"were longer than task.max_length={task.max_length} tokens and were cut, as in training"
        questions = f"task.max_question={getattr(task, 'max_question', None)} tokens"
        sentences = {
            "truncated": f"rows {cut}",
            "truncated_source": f"rows {cut}",
            "lost_words": f"words are behind task.max_length={task.max_length} tokens, and have the tag O",
            "cut_questions": f"questions were longer than {questions} and were cut, as in training",
            BROKEN: "rows or windows had logits that are no numbers, and tell nothing",
        }
        return [
            *self._batch_notes(),
            *(
                f"{count} {sentences.get(name, f'rows were not asked, {name}: their prediction is empty')}"
                for name, count in counts.items()
                if count
            ),
        ]

    def _batch_notes(self) -> list[str]:
        """Return a sentence if a prediction depends on the rows of its batch."""
        quant_config = getattr(self._model, "quant_config", None)  # of a run's model; FP32 has None
        if quant_config is None or not quant_config.depends_on_batch:
            return []
        return [
            f"{self._done} rows were predicted with ranges of their batches "
            "(scheme.activation.dynamic=tensor): others beside them, or another --batch-size, may change "
            "scores a little"
        ]

    @property
    def of_words(self) -> bool:
        """Whether a row may also be a list of words."""
        return self._kind.words

    def _lists(self, rows: Sequence[Row]) -> pa.Array:
        """Return the words of each row; a text is split at blanks."""
        (name,) = self.columns
        words = [row[name].split() if isinstance(row[name], str) else row[name] for row in rows]
        return pa.array(words, pa.list_(pa.string()))

    def _tokens(self, rows: Sequence[Row], folder: Path) -> Tokens:
        """Tokenize rows in the same way as the run's own evaluation.

        Raises:
            ModelError: A token has no row in the model's table of embeddings.
        """
        task, numbers = self._model.task, np.arange(self._done, self._done + len(rows))
        names = zip(self._kind.columns(task), self.columns, strict=True)
        if self._kind.words:
            texts = dict.fromkeys(self._kind.columns(task), self._lists(rows))
        else:
            texts = {own: pa.array([row[name] for row in rows], pa.string()) for own, name in names}
        gold = self._kind.gold(task, len(rows))
        table = pa.table({"id": numbers, **texts, **gold})
        out, split = Tokens(folder, ""), self._split
        (folder / "tokenizer").symlink_to(self._model.tokens.tokenizer.absolute())
        facts = {"pad_id": self._model.tokens.pad_id, "rows": {split: len(rows)}}
        (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        counts = PREPARE[type(task)](
            table, task, self._tokenizer, folder=out.split(split), split=split, advance=lambda rows: None
        )
        self.facts.update({name: count for name, count in counts.items() if isinstance(count, int)})
        self.facts.update(counts.get("skipped", {}))
        if self._embeddings is not None:
            check_ids(out.split(split), rows=self._embeddings, where="these rows", tokenizer=out.tokenizer)
        return out


def _no_forward(batch: object) -> NoReturn:
    raise AssertionError("a task whose logits an engine computes asks for no other function")


def _tokenizer(folder: Path, *, light: bool) -> Any:
    if light:
        return saved_tokenizer(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _with_own_columns(rows: Sequence[Row], table: pa.Table) -> pa.Table:
    """Return a table of the index, the own columns of the rows, and the predictions.

    Raises:
        DataError: A column has the name of a prediction, or holds values of several types.
    """
    own_columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}
    if shared := sorted({*own_columns} & {*table.column_names}):
        raise DataError(
            f"--keep: the rows have columns that predictions have, too: {', '.join(shared)}; rename them, or "
            "leave --keep out"
        )
    columns = {INDEX: table[INDEX]}
    for name, values in own_columns.items():
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise DataError(
                f"--keep: column {name!r} cannot be kept ({error}); give it one type, or leave --keep out"
            ) from error
    return pa.table(columns | {name: table[name] for name in table.column_names})
