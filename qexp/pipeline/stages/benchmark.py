"""Stage that times engines side by side and audits the nodes that they execute."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import Graph, Latency, Tokens
from qexp.config import DeployEngines, Task
from qexp.context import RunContext
from qexp.deploy.hardware import Host
from qexp.errors import DeployError
from qexp.naming import StageName

if TYPE_CHECKING:
    from qexp.deploy.benchmark import EngineBenchmark
    from qexp.deploy.engine import Batch, Engine

MOST_IN_FLOAT = 12
"""Most floating-point products in an audit, the largest first."""


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    names: tuple[str, ...],
    graphs: tuple[Graph, ...],
    tokens: Tokens,
    task: Task,
    deploy: DeployEngines,
    benchmark_runs: int | None,
    benchmark_rows: int | None,
    host: Host,
) -> None:
    """Time all engines in turn on the same batches.

    A shape that an engine rejects, for instance for lack of memory, is recorded as a problem, and the engine
    is timed on the others. ``benchmark_rows`` excludes batches with more rows, except the smallest. ``host``
    is part of the cache key, so that each machine has its own timings.
    """
    from qexp.deploy.benchmark import EngineBenchmark, pinned
    from qexp.deploy.timing import TimingEffort
    from qexp.tasks.timing_batches import batches_of

    batches = batches_of(tokens, task, _limited(deploy, benchmark_rows), graphs[0].vocabulary)
    runs = min(deploy.runs, benchmark_runs or deploy.runs)
    effort = TimingEffort(runs, min(deploy.warmup, runs), deploy.seconds is not None, deploy.seconds)
    with (
        pinned(host.threads, ctx.console.warn),
        ctx.console.bar("benchmark", total=None, unit="timed") as advance,
    ):
        engines = _engines(names, graphs, deploy, ctx)
        bench = EngineBenchmark(engines, effort)
        for shape, of_shape in batches.items():
            bench.measure(shape, of_shape, advance)
        first = next(iter(batches.values()))[0]
        audits = {name: _audit(name, engine, first, bench) for name, engine in engines.items()}
    work.write_facts(
        {
            "latency": bench.latency,
            "problems": bench.problems,
            "audits": audits,
            "host": asdict(host),
            "engines": {name: asdict(engine.info) for name, engine in engines.items()},
        }
    )


def _limited(deploy: DeployEngines, rows: int | None) -> DeployEngines:
    """Exclude batches with more than ``rows`` rows, except the smallest; None is no limit."""
    most = max(min(deploy.batch_sizes), rows or max(deploy.batch_sizes))
    return deploy.model_copy(
        update={"batch_sizes": tuple(size for size in deploy.batch_sizes if size <= most)}
    )


def _engines(
    names: tuple[str, ...], graphs: tuple[Graph, ...], deploy: DeployEngines, ctx: RunContext
) -> dict[str, Engine]:
    from qexp.deploy.engine import EngineSpec
    from qexp.deploy.runtimes import load

    requested = {f"{runtime}/{precision}": (runtime, precision) for runtime, precision in deploy.asked}
    return {
        name: load(
            requested[name][0],
            EngineSpec(
                graph.file, requested[name][1], threads=ctx.threads, shapes=deploy.shapes, cache=ctx.engines
            ),
        )
        for name, graph in zip(names, graphs, strict=True)
    }


def _audit(name: str, engine: Engine, batch: Batch, bench: EngineBenchmark) -> dict[str, Any] | None:
    """Return the audit of an engine; a failure is recorded as a problem, so that its timings are kept."""
    try:
        audit = engine.audit({each: batch[each] for each in engine.inputs})
    except DeployError as error:
        bench.problems.setdefault(name, {})["audit"] = str(error)
        return None
    if audit is None:
        return None
    in_float = [asdict(each) for each in audit.in_float[:MOST_IN_FLOAT]]
    return asdict(audit) | {
        "products": len(audit.products),
        "integer_share": audit.integer_share,
        "in_float": in_float,
    }


STAGE = Stage(
    StageName.LATENCY,
    3,
    Latency,
    run,
    keys={
        "names": "names",
        "graphs": "graphs",
        "tokens": "tokens",
        "task": "task",
        "deploy": "deploy",
        "benchmark_runs": "benchmark_runs",
        "benchmark_rows": "benchmark_rows",
        "host": "host",
    },
)
