"""A model of a run, in torch or in another runtime, as a function from rows to predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.analysis.run_models import Model, graph_of
from qexp.artifacts.types import FACTS, Tokens
from qexp.config import Precision, RuntimeName
from qexp.context import Runtime
from qexp.data.tokenization.prepare import PREPARE
from qexp.errors import DataError
from qexp.models.inference import load_quantized
from qexp.pipeline.deployment import graph_for
from qexp.prediction.readers import Row
from qexp.prediction.tasks import BROKEN, KINDS, Asked, Move
from qexp.tasks import family_of
from qexp.tasks.base import Run

if TYPE_CHECKING:
    pass

TORCH = "torch"
"""The runtime that evaluated the run: torch, with quantization simulated in floating point."""
INDEX = "index"
"""Column with the number of the row in the input, from 0."""


class Predictor:
    """Predicts parts of an input, one after another.

    Args:
        model: Of the run.
        run: What computes its logits.
        batch_size: Rows, or windows, that are run at once.
        keep: Whether the rows' own columns stand before the predictions.
    """

    def __init__(self, model: Model, run: Run, *, batch_size: int, keep: bool) -> None:
        from transformers import AutoTokenizer

        self.facts: Counter[str] = Counter()
        """Rows that were cut or left out, by what tokenization calls it."""
        self._model, self._run, self._batch_size, self._keep = model, run, batch_size, keep
        self._tokenizer = AutoTokenizer.from_pretrained(model.tokens.tokenizer)
        self._kind = KINDS[type(model.task)]
        self._done = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns with the texts of a row."""
        return self._kind.columns(self._model.task)

    def predict(self, rows: Sequence[Row], move: Move) -> pa.Table:
        """Index, the rows' own columns where they are kept, and predictions, in the order of the rows."""
        with TemporaryDirectory(prefix="qexp-predict-") as folder:
            tokens = self._tokens(rows, Path(folder))
            asked = Asked(tokens, self._split, self._run, self._batch_size, move, self.facts)
            told = self._kind.tell(self._model.task, asked)
        index = np.arange(self._done, self._done + len(rows))
        self._done += len(rows)
        table = pa.table({INDEX: index, **told})
        return table if not self._keep else _beside(rows, table)

    def notes(self) -> list[str]:
        """What happened to rows, in sentences: what was cut as in training, what was left out and why."""
        task, told = self._model.task, {**self.facts}
        told.pop("windows", None)
        told.pop("truncated_target", None)
        cut = f"were longer than task.max_length={task.max_length} tokens and were cut, as in training"
        questions = f"task.max_question={getattr(task, 'max_question', None)} tokens"
        words = {
            "truncated": f"rows {cut}",
            "truncated_source": f"rows {cut}",
            "cut_questions": f"questions were longer than {questions} and were cut, as in training",
            BROKEN: "rows or windows had logits that are no numbers, and tell nothing",
        }
        return [
            f"{count} {words.get(name, f'rows were not asked, {name}: their prediction is empty')}"
            for name, count in told.items()
            if count
        ]

    @property
    def _split(self) -> str:
        return next(iter(self._model.task.evaluation.values()))

    def _tokens(self, rows: Sequence[Row], folder: Path) -> Tokens:
        """Tokens of rows as the run's own evaluation had them."""
        task, numbers = self._model.task, np.arange(self._done, self._done + len(rows))
        texts = {name: pa.array([row[name] for row in rows], pa.string()) for name in self.columns}
        gold = self._kind.gold(task, len(rows))
        table = pa.table({"id": numbers, **texts, **gold})
        out, split = Tokens(folder, ""), self._split
        (folder / "tokenizer").symlink_to(self._model.tokens.tokenizer.absolute())
        facts = {"pad_id": self._model.tokens.pad_id, "rows": {split: len(rows)}}
        (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        found = PREPARE[type(task)](table, task, self._tokenizer, out.split(split), split, lambda rows: None)
        self.facts.update({name: count for name, count in found.items() if isinstance(count, int)})
        self.facts.update(found.get("skipped", {}))
        return out


def torch_run(model: Model, rt: Runtime) -> Run:
    """The model as the run evaluated it."""
    loaded, _ = load_quantized(model.encoder, model.form, model.ranges, rt)
    return family_of(model.task).runner(loaded, rt)


def engine_run(model: Model, runtime: RuntimeName, precision: Precision, batch_size: int, rt: Runtime) -> Run:
    """Its graph in one of :data:`qexp.deploy.runtimes.RUNTIMES`.

    Raises:
        DeployError: there is no graph of it, or the runtime is not there or refuses it.
    """
    from qexp.deploy.engine import Order
    from qexp.deploy.runtimes import load
    from qexp.tasks.exported import exported_run

    graph = graph_of(model, rt)
    graph = graph_for(runtime, precision, {"fp32": graph, "int8": graph}, rt)
    shapes = ((batch_size, model.task.max_length),)
    return exported_run(
        model.task,
        graph.folder,
        lambda file: load(runtime, Order(file, precision, rt.threads, shapes, rt.engines)),
    )


def _beside(rows: Sequence[Row], table: pa.Table) -> pa.Table:
    """Index, the rows' own columns, and predictions behind them.

    Raises:
        DataError: a column has the name of a prediction, or holds values of several types.
    """
    kept = {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}
    if both := sorted({*kept} & {*table.column_names}):
        raise DataError(
            f"--keep: the rows have columns that predictions have, too: {', '.join(both)}; rename them, or "
            "leave --keep out"
        )
    columns = {INDEX: table[INDEX]}
    for name, values in kept.items():
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise DataError(
                f"--keep: column {name!r} cannot be kept ({error}); give it one type, or leave --keep out"
            ) from error
    return pa.table(columns | {name: table[name] for name in table.column_names})
