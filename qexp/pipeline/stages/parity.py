"""Stage of the gate, which compares an engine's predictions with torch and its noise floor."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import Graph, NoiseFloor, Parity, Scores, Tokens
from qexp.config import Precision, RuntimeName, Task
from qexp.context import RunContext
from qexp.deploy.hardware import Host
from qexp.naming import StageName

if TYPE_CHECKING:
    from pathlib import Path

    from qexp.deploy.engine import Engine


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    graph: Graph,
    scores: Scores,
    floor: NoiseFloor,
    tokens: Tokens,
    task: Task,
    rows: int | None,
    runtime: RuntimeName,
    precision: Precision,
    host: Host,
) -> None:
    """Score an engine, and compare its predictions with torch's; ``host`` has the version of the runtime."""
    from qexp.data.batches import EVALUATION_BATCH
    from qexp.deploy.engine import EngineSpec
    from qexp.deploy.runtimes import load
    from qexp.tasks.exported import exported_run
    from qexp.tasks.multi_label import decided
    from qexp.tasks.scoring import score_splits

    shapes = ((1, 8), (EVALUATION_BATCH, task.max_length))
    engines: list[Engine] = []

    def load_engine(file: Path) -> Engine:
        engines.append(
            load(runtime, EngineSpec(file, precision, threads=ctx.threads, shapes=shapes, cache=ctx.engines))
        )
        return engines[-1]

    forward = exported_run(task, graph.folder, load_engine)
    task = decided(task, forward, tokens, decoding=scores, ctx=ctx)
    out = Parity(work.folder, "")
    scored = score_splits(
        forward, tokens, task=task, rows=rows, out=out, title=f"{runtime} {precision}", ctx=ctx
    )
    parity = compare(
        out, scores, floor=floor, task=task, rows=rows, broken=scored.broken, precision=precision
    )
    facts = {"parity": parity, "engine": asdict(engines[-1].info) | {"bytes": graph.bytes}}
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes, **facts})


def compare(
    engine: Scores,
    torch: Scores,
    floor: NoiseFloor,
    task: Task,
    rows: int | None = None,
    *,
    broken: int = 0,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Return the verdict of :func:`qexp.tasks.gate.judge` on the first rows of every evaluation split.

    Args:
        engine: Predictions of the engine.
        torch: Predictions of the model in torch; they may have more rows.
        floor: Predictions of the model in another arithmetic; of the first rows, if fewer.
        task: Task that determines how predictions are compared.
        rows: Number of first rows of each split; None is all.
        broken: Number of the engine's rows, or windows, whose logits are not finite.
        precision: Arithmetic of the engine and of the floor.
    """
    from qexp.tasks.comparison import GateComparison, first_rows, splits_of
    from qexp.tasks.gate import judge
    from qexp.tasks.scoring import read_predictions

    predictions = [
        [first_rows(read_predictions(scores, name), rows) for name in task.evaluation]
        for scores in (engine, torch, floor, floor.steps)
    ]
    predictions[0] = [replace(split, broken=broken) for split in predictions[0]]
    return judge(GateComparison(task, splits_of(task, *predictions), precision))


STAGE = Stage(
    StageName.PARITY,
    7,
    Parity,
    run,
    keys={
        "graph": "graph",
        "scores": "scores",
        "floor": "floor",
        "tokens": "tokens",
        "task": "task",
        "rows": "rows",
        "runtime": "runtime",
        "precision": "precision",
        "host": "host",
    },
)
