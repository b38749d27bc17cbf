"""Rows to token ids."""

from __future__ import annotations

from qexp.artifacts import Tokens
from qexp.config import Task
from qexp.data.checkpoints import Checkpoint
from qexp.data.sources import Rows
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


def run(work: Workplace, rows: Rows, checkpoint: Checkpoint, task: Task, *, rt: Runtime) -> None:
    """Tokenize every split; the tokenizer goes along, so that later stages need no checkpoint."""
    from transformers import AutoTokenizer

    from qexp.data.tokens import tokenize

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, use_fast=True)
    out = Tokens(work.folder, "")
    cut = {}
    with rt.screen.bar(f"tokenize {task.name}", total=len(rows.splits)) as move:
        for name, table in rows.splits.items():
            split = tokenize(table, task, tokenizer)
            split.save(out.split(name))
            cut[name] = split.truncated
            move()
    tokenizer.save_pretrained(out.tokenizer)
    work.write_facts(
        {
            "pad_id": tokenizer.pad_token_id,
            "rows": {name: table.num_rows for name, table in rows.splits.items()},
            "truncated": cut,
        }
    )


STAGE = Stage("1-tokens", 1, Tokens, run)
