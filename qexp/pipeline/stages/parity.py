"""The gate: an engine, run over the whole evaluation set, against torch and its noise floor."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Graph, NoiseFloor, Parity, Scores, Tokens
from qexp.config import Precision, RuntimeName, Task
from qexp.context import Runtime
from qexp.deploy.hardware import Host

if TYPE_CHECKING:
    from pathlib import Path

    from qexp.deploy.engine import Engine


def run(
    work: Workplace,
    graph: Graph,
    scores: Scores,
    floor: NoiseFloor,
    tokens: Tokens,
    task: Task,
    rows: int | None,
    runtime: RuntimeName,
    precision: Precision,
    host: Host,
    *,
    rt: Runtime,
) -> None:
    """Score the engine and hold its predictions against torch's; ``host`` has its version."""
    from qexp.data.batches import EVALUATION_BATCH
    from qexp.deploy.engine import Order
    from qexp.deploy.runtimes import load
    from qexp.tasks.exported import exported_run
    from qexp.tasks.scoring import score_splits

    shapes = ((1, 8), (EVALUATION_BATCH, task.max_length))
    engines: list[Engine] = []

    def loaded(file: Path) -> Engine:
        engines.append(load(runtime, Order(file, precision, rt.threads, shapes, rt.engines)))
        return engines[-1]

    forward = exported_run(task, graph.folder, loaded)
    out = Parity(work.folder, "")
    scored = score_splits(forward, tokens, task, rows, out, f"{runtime} {precision}", rt)
    parity = compare(out, scores, floor, task, rows, broken=scored.broken, precision=precision)
    found = {"parity": parity, "engine": asdict(engines[-1].info) | {"bytes": graph.bytes}}
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes, **found})


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
    """What :func:`qexp.tasks.gate.judge` says of the first ``rows`` rows of every evaluation split.

    Args:
        engine: Predictions of the engine.
        torch: Of the model, in torch; it may have more rows.
        floor: Of the model in another arithmetic.
        task: How they are compared.
        rows: How many; None is all.
        broken: How many of the engine's rows, or windows, had logits that are not finite.
        precision: Arithmetic of engine and floor.
    """
    from qexp.tasks.comparison import Comparison, first_rows, splits_of
    from qexp.tasks.gate import judge
    from qexp.tasks.scoring import read_predictions

    sides = [
        [first_rows(read_predictions(scores, name), rows) for name in task.evaluation]
        for scores in (engine, torch, floor, floor.steps)
    ]
    sides[0] = [replace(found, broken=broken) for found in sides[0]]
    return judge(Comparison(task, splits_of(task, *sides), precision))


STAGE = Stage("8-parity", 6, Parity, run)
