"""Score of a model in training on held-out rows of the train split.

It is the first metric of the task where a prediction is the highest logit or near it: classes, numbers, sets
of labels, tags. Elsewhere it is the loss: translations and their search are dear, questions have no reference
texts in the train split, and relevances of reranking are trained on pair by pair.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qexp.artifacts.types import FACTS, Tokens
from qexp.config import MultiLabelTask, Task, TextTask, TokenTask
from qexp.data.batches import EVALUATION_BATCH, Array, evaluation_batches
from qexp.data.microbatches import Batch
from qexp.tasks import adapter_for
from qexp.tasks.module import TaskModule
from qexp.training.compile import uncompiled

LOSS = "loss"
SPLIT = "held_out"
"""Name of the split that held-out rows are written as."""


@dataclass(frozen=True)
class Holdout:
    """Held-out rows of the train split, and the score of a model on them."""

    tokens: Tokens
    task: Task
    rows: Array
    """Row numbers in the tokenized train split, int64."""

    @property
    def score_name(self) -> str:
        """Name of the score: the task's first metric, or ``loss``."""
        return self.task.metrics[0] if isinstance(self.task, TextTask | MultiLabelTask | TokenTask) else LOSS

    @property
    def higher_is_better(self) -> bool:
        return self.score_name != LOSS

    def score(self, module: TaskModule, scratch: Path) -> float | None:
        """Return the score of a module, in percent or nats per term of the loss; None where it is undefined.

        Args:
            module: Module, which is in training mode again afterwards.
            scratch: Folder for files of the rows.
        """
        module.eval()
        with torch.no_grad(), uncompiled(module.model):
            value = self._metric(module, scratch) if self.higher_is_better else self._loss(module)
        module.train()
        return value if value is not None and math.isfinite(value) else None

    def _metric(self, module: TaskModule, scratch: Path) -> float | None:
        adapter, tokens = adapter_for(self.task), self._written(scratch / SPLIT)
        found = adapter.predict(_forward(module), tokens, SPLIT, rows=None, advance=lambda *_, **__: None)
        return None if found.broken else adapter.score(found)[self.score_name]

    def _loss(self, module: TaskModule) -> float:
        """Return the mean loss over all of its terms, such as target tokens, without label smoothing."""
        adapter = adapter_for(self.task)
        split = adapter.split(self.tokens.split(self.task.train))
        total, count, forward = 0.0, 0, _forward(module)
        for batch in evaluation_batches(split.lengths[self.rows], batch_size=EVALUATION_BATCH):
            rows = self.rows[batch]
            tensors = _moved(adapter.collate(split, rows, self.tokens.pad_id), module)
            terms = adapter.loss_count(split, rows)
            total += terms * float(module.evaluation_loss(forward(tensors).float(), tensors))
            count += terms
        return total / max(1, count)

    def _written(self, folder: Path) -> Tokens:
        """Return tokens of the held-out rows alone, which are written once."""
        tokens = Tokens(folder, "")
        if not (folder / FACTS).is_file():
            split = adapter_for(self.task).split(self.tokens.split(self.task.train))
            split.take(self.rows).save(tokens.split(SPLIT))
            (folder / FACTS).write_text(json.dumps({"pad_id": self.tokens.pad_id}), encoding="utf-8")
        return tokens


def _forward(module: TaskModule) -> Callable[[Batch], Any]:
    def run(batch: Batch) -> Tensor:
        logits: Tensor = module(_moved(batch, module))
        return logits

    return run


def _moved(batch: Batch, module: TaskModule) -> Batch:
    return {name: tensor.to(module.device) for name, tensor in batch.items()}
