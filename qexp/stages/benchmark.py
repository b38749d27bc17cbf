"""Graphs side by side on the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from qexp.artifacts import Graph, Latency
from qexp.config import OnnxRuntime
from qexp.host import Host
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


def run(
    work: Workplace,
    fp32: Graph,
    quantized: Graph | None,
    deploy: OnnxRuntime,
    benchmark_runs: int | None,
    host: Host,
    *,
    rt: Runtime,
) -> None:
    """Time both graphs in turn on the same batches of full length; ``host`` keeps machines apart."""
    from qexp.deploy.engine import Order
    from qexp.deploy.engines.onnxruntime import Session
    from qexp.deploy.timing import measure_alternating

    graphs = {"fp32": fp32} | ({"int8": quantized} if quantized else {})
    sessions = {name: Session(Order(graph.file, "int8", host.threads)) for name, graph in graphs.items()}
    runs = min(deploy.runs, benchmark_runs or deploy.runs)
    latency: dict[str, dict[str, Any]] = {name: {} for name in graphs}
    total = len(deploy.batch_sizes) * (runs + deploy.warmup) * len(graphs)
    with rt.screen.bar("benchmark", total=total) as move:
        for rows in deploy.batch_sizes:
            shape = (rows, deploy.length)
            calls = {name: _call(session, shape, fp32.vocabulary, move) for name, session in sessions.items()}
            timed = measure_alternating(calls, rows=rows, runs=runs, warmup=deploy.warmup)
            for name, times in timed.items():
                latency[name][str(rows)] = asdict(times)
    work.write_facts({"latency": latency, "host": asdict(host)})


def _call(
    session: Any, shape: tuple[int, int], vocabulary: int, move: Callable[..., None]
) -> Callable[[], None]:
    """One timed call on rows of full length, without padding, so that shapes alone decide the work."""
    import numpy as np

    ids = np.random.default_rng(0).integers(0, vocabulary, shape)
    full = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    batch = {name: full[name] for name in session.inputs}

    def call() -> None:
        session.run(batch)
        move()

    return call


STAGE = Stage("9-latency", 1, Latency, run)
