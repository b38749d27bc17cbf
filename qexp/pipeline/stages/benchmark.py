"""Engines side by side on the clock, and what they do with the work."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Graph, Latency, Tokens
from qexp.config import Engines, Task
from qexp.context import Runtime
from qexp.deploy.hardware import Host
from qexp.errors import DeployError

if TYPE_CHECKING:
    from qexp.deploy.benchmark import Bench
    from qexp.deploy.engine import Batch, Engine

MOST_IN_FLOAT = 12
"""Products in floating point that are told of, the largest first."""


def run(
    work: Workplace,
    names: tuple[str, ...],
    graphs: tuple[Graph, ...],
    tokens: Tokens,
    task: Task,
    deploy: Engines,
    benchmark_runs: int | None,
    benchmark_rows: int | None,
    host: Host,
    *,
    rt: Runtime,
) -> None:
    """Time all engines in turn on the same batches; ``host`` keeps machines apart.

    A shape that one engine refuses, such as one that does not fit its memory, is noted, and the engine goes
    on with the others. ``benchmark_rows`` leaves out batches with more rows, but for the smallest.
    """
    from qexp.deploy.benchmark import Bench, pinned
    from qexp.deploy.timing import Effort
    from qexp.tasks.timing_batches import batches_of

    batches = batches_of(tokens, task, _limited(deploy, benchmark_rows), graphs[0].vocabulary)
    runs = min(deploy.runs, benchmark_runs or deploy.runs)
    effort = Effort(runs, min(deploy.warmup, runs), deploy.seconds is not None, deploy.seconds)
    with pinned(host.threads), rt.screen.bar("benchmark", total=None) as move:
        engines = _engines(names, graphs, deploy, rt)
        bench = Bench(engines, effort)
        for shape, of_shape in batches.items():
            bench.measure(shape, of_shape, move)
        first = next(iter(batches.values()))[0]
        audits = {name: _audit(name, engine, first, bench) for name, engine in engines.items()}
    work.write_facts({
        "latency": bench.latency, "problems": bench.problems, "audits": audits, "host": asdict(host),
        "engines": {name: asdict(engine.info) for name, engine in engines.items()},
    })  # fmt: skip


def _limited(deploy: Engines, rows: int | None) -> Engines:
    """The same with no batch of more than ``rows`` rows, but for the smallest; null is no limit."""
    most = max(min(deploy.batch_sizes), rows or max(deploy.batch_sizes))
    return deploy.model_copy(
        update={"batch_sizes": tuple(size for size in deploy.batch_sizes if size <= most)}
    )


def _engines(
    names: tuple[str, ...], graphs: tuple[Graph, ...], deploy: Engines, rt: Runtime
) -> dict[str, Engine]:
    from qexp.deploy.engine import Order
    from qexp.deploy.runtimes import load

    asked = {f"{runtime}/{precision}": (runtime, precision) for runtime, precision in deploy.asked}
    return {
        name: load(asked[name][0], Order(graph.file, asked[name][1], rt.threads, deploy.shapes, rt.engines))
        for name, graph in zip(names, graphs, strict=True)
    }


def _audit(name: str, engine: Engine, batch: Batch, bench: Bench) -> dict[str, Any] | None:
    """What an engine tells of its work; times that were measured are not lost if it cannot."""
    try:
        audit = engine.audit({each: batch[each] for each in engine.inputs})
    except DeployError as error:
        bench.problems.setdefault(name, {})["audit"] = str(error)
        return None
    if audit is None:
        return None
    left = [asdict(each) for each in audit.in_float[:MOST_IN_FLOAT]]
    return asdict(audit) | {
        "products": len(audit.products),
        "integer_share": audit.integer_share,
        "in_float": left,
    }


STAGE = Stage("9-latency", 3, Latency, run)
