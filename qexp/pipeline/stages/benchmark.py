"""Stage that times engines side by side and audits the nodes that they execute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import Graph, Latency, Tokens
from qexp.config import BeamSearch, DeployEngines, Task, TranslationTask
from qexp.config.deploy import BEAMS, beam_shape
from qexp.context import RunContext
from qexp.deploy.hardware import Host
from qexp.errors import DeployError
from qexp.naming import RuntimeName, StageName
from qexp.records.schema import SessionCost

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
    is part of the cache key, so that each machine has its own timings. What a session costs is measured when
    the clock has stopped; artifacts from before it was measured lack it, and stay valid, as their timings do.
    """
    from qexp.deploy.benchmark import EngineBenchmark, pinned
    from qexp.deploy.timing import TimingEffort

    deploy = _limited(deploy, benchmark_rows)
    runs = min(deploy.runs, benchmark_runs or deploy.runs)
    effort = TimingEffort(runs, min(deploy.warmup, runs), deploy.seconds is not None, deploy.seconds)
    with (
        pinned(host.threads, ctx.console.warn),
        ctx.console.bar("benchmark", total=None, unit="timed") as advance,
    ):
        bench = EngineBenchmark({}, effort)
        rounds = _rounds(names, graphs, tokens=tokens, task=task, deploy=deploy, ctx=ctx)
        for each in rounds:
            bench.engines = each.engines
            bench.measure(each.shape, each.batches, advance)
        engines, first = rounds[0].engines, rounds[0].batches[0]
        audits = {name: _audit(name, engine, first, bench) for name, engine in engines.items()}
        least = min(rounds, key=lambda each: next(iter(each.batches[0].values())).size)
        folders = dict(zip(names, graphs, strict=True))
        sessions = {
            name: _session(least, name, folders[name], host=host, benchmark_runs=benchmark_runs)
            for name in engines
        }
    work.write_facts(
        {
            "latency": bench.latency,
            "problems": bench.problems,
            "audits": audits,
            "sessions": sessions,
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


@dataclass(frozen=True)
class _Round:
    """Engines that are timed on batches of one shape."""

    shape: str
    engines: Mapping[str, Engine]
    batches: Sequence[Batch]
    search: BeamSearch | None = None
    """Search of a translation."""


def _rounds(
    names: tuple[str, ...],
    graphs: tuple[Graph, ...],
    *,
    tokens: Tokens,
    task: Task,
    deploy: DeployEngines,
    ctx: RunContext,
) -> list[_Round]:
    """Return a round for each shape, or for each batch size and number of beams of a translation."""
    from qexp.tasks.timing_batches import batches_of

    loaders = {name: _loader(name, deploy, ctx) for name in names}
    if isinstance(task, TranslationTask):
        return _searches(dict(zip(names, graphs, strict=True)), loaders, tokens, task=task, deploy=deploy)
    engines = {name: loaders[name](graph.file) for name, graph in zip(names, graphs, strict=True)}
    batches = batches_of(tokens, task, deploy, graphs[0].vocabulary)
    return [_Round(shape, engines, of_shape) for shape, of_shape in batches.items()]


def _searches(
    graphs: Mapping[str, Graph],
    loaders: Mapping[str, Callable[[Path], Engine]],
    tokens: Tokens,
    *,
    task: TranslationTask,
    deploy: DeployEngines,
) -> list[_Round]:
    from qexp.tasks.engine_search import SearchEngine, load_translator
    from qexp.tasks.timing_batches import sentences_of

    translators = {name: load_translator(graph.folder, loaders[name]) for name, graph in graphs.items()}
    rounds = []
    for beams in deploy.beams or BEAMS:
        search = task.search.model_copy(update={"beams": beams})
        for rows in deploy.batch_sizes:
            engines = {name: SearchEngine(each, search) for name, each in translators.items()}
            batches = sentences_of(tokens, task, rows)
            rounds.append(_Round(beam_shape(rows, beams), engines, batches, search))
    return rounds


def _loader(name: str, deploy: DeployEngines, ctx: RunContext) -> Callable[[Path], Engine]:
    """Return a function from a file to the engine of a name, such as ``openvino/int8``."""
    from qexp.deploy.engine import EngineSpec
    from qexp.deploy.runtimes import load

    requested = {f"{runtime}/{precision}": (runtime, precision) for runtime, precision in deploy.asked}
    runtime, precision = requested[name]

    def load_file(file: Path) -> Engine:
        spec = EngineSpec(file, precision, threads=ctx.threads, shapes=deploy.shapes, cache=ctx.engines)
        return load(runtime, spec)

    return load_file


def _session(
    least: _Round, name: str, graph: Graph, *, host: Host, benchmark_runs: int | None
) -> SessionCost:
    """Measure memory and load time of an engine, until it has answered the first batch of a round.

    Where the budget allows few timed runs, the processes would take longer than all of them, so that nothing
    is measured.
    """
    from qexp.deploy.timing import LEAST_RUNS
    from qexp.tasks.session_cost import SessionRequest, measure_session, without_cost

    info = least.engines[name].info
    if benchmark_runs is not None and benchmark_runs < LEAST_RUNS:
        return without_cost(f"budget.benchmark_runs={benchmark_runs} is less than {LEAST_RUNS}")
    if info.device != host.processor:
        return without_cost(f"it computes on {info.device}, not in the memory of the process")
    file = graph.folder if least.search else graph.file
    request = SessionRequest(
        cast(RuntimeName, info.runtime), info.precision, host.threads, file, search=least.search
    )
    return measure_session(request, least.batches[0])


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
