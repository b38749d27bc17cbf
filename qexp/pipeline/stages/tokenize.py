"""Rows to token ids."""

from __future__ import annotations

import os

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Tokens
from qexp.config import Task
from qexp.context import Runtime
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.data.sources.resolve import Rows


def run(work: Workplace, rows: Rows, checkpoint: Checkpoint | Blueprint, task: Task, *, rt: Runtime) -> None:
    """Tokenize every split; the tokenizer goes along, so that later stages need no checkpoint.

    A model from scratch has none: it is made of the train split.
    """
    from qexp.data.tokenization.prepare import PREPARE
    from qexp.data.tokenization.tokenizers import tokenizer_for

    if (threads := rt.machine.threads or rt.share) is not None:
        # Read once, when a process tokenizes for the first time. Left alone, Rust also minds CPU quotas.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    tokenizer = tokenizer_for(checkpoint, rows.splits, task)
    out = Tokens(work.folder, "")
    counts = {name: table.num_rows for name, table in rows.splits.items()}
    with rt.screen.bar(f"tokenize {task.name}", total=sum(counts.values())) as move:
        facts = {
            name: PREPARE[type(task)](table, task, tokenizer, out.split(name), name, move)
            for name, table in rows.splits.items()
        }
    tokenizer.save_pretrained(out.tokenizer)
    work.write_facts({"pad_id": tokenizer.pad_token_id, "rows": counts, "preparation": facts})


STAGE = Stage("1-tokens", 2, Tokens, run)
