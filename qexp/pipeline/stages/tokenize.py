"""Stage that converts rows to token ids."""

from __future__ import annotations

import os

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import Tokens
from qexp.config import Task
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.sources.resolve import SourceRows
from qexp.naming import StageName


def run(
    work: BuildDir, ctx: RunContext, *, rows: SourceRows, checkpoint: Checkpoint | ScratchModel, task: Task
) -> None:
    """Tokenize every split, and save the tokenizer, so that later stages need no checkpoint.

    The tokenizer of a model from scratch is trained on the train split.
    """
    from qexp.data.tokenization.prepare import PREPARE
    from qexp.data.tokenization.tokenizers import tokenizer_for

    if (threads := ctx.machine.threads or ctx.share) is not None:
        # Read once, at the first tokenization of a process. Without it, Rust also respects CPU quotas.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    tokenizer = tokenizer_for(checkpoint, rows.splits, task)
    tokens = Tokens(work.folder, "")
    counts = {name: table.num_rows for name, table in rows.splits.items()}
    with ctx.console.bar(f"tokenize {task.name}", total=sum(counts.values())) as advance:
        facts = {
            name: PREPARE[type(task)](
                table, task, tokenizer, folder=tokens.split(name), split=name, advance=advance
            )
            for name, table in rows.splits.items()
        }
    tokenizer.save_pretrained(tokens.tokenizer)
    work.write_facts({"pad_id": tokenizer.pad_token_id, "rows": counts, "preparation": facts})


STAGE = Stage(
    StageName.TOKENS, 2, Tokens, run, keys={"rows": "rows", "checkpoint": "checkpoint", "task": "task"}
)
