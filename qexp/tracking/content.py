"""Contents of a tracker page: first of an experiment, and later of its Record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

from qexp.artifacts.types import Graph
from qexp.config import Experiment
from qexp.config.tracking import LONGEST_TAG
from qexp.errors import QexpError
from qexp.naming import MODEL_STAGES, StageName
from qexp.records.outcome import outcome, reason
from qexp.records.record import Record
from qexp.reporting.charts.gate_distribution import shares_of
from qexp.reporting.costs import session_numbers
from qexp.reporting.predictions import evaluations, joined_rows
from qexp.reporting.run_view import RunView
from qexp.tracking.tracker import Cell, CellTable, Page, PageContent, without_secrets

ONNX = StageName.ONNX
"""Stage of the exported graphs (a test compares it with the stage's name)."""


def page_of(experiment: Experiment, key: str, source: str | None, group: str | None) -> Page:
    """Return the page of a run.

    Args:
        experiment: Experiment of the run.
        key: Key of the run.
        source: Source of its rows of data; None if it was never decided.
        group: Id of the sweep.
    """
    task, quant, method = experiment.task.name, experiment.quant.name, experiment.method.kind
    tags = [task, quant, experiment.model.name.rstrip("/").rsplit("/", 1)[-1], experiment.budget.name]
    if method != "none":
        tags.append(method)
    if experiment.quant.enabled:
        tags += [experiment.calibrator.kind, experiment.placement.name]
    if source == "sample":
        tags.append("sample")
    tags += experiment.tags
    config = experiment.model_dump(mode="json", exclude={"tracker", "tags", "note"})
    name = f"{task}-{quant}-{method}-s{experiment.seed}"
    short = dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag)
    return Page(key, name, group=group, job_type=task, tags=tuple(short), config=config, note=experiment.note)


def content_of(record: Record, outputs: Path, warn: Callable[[str], None]) -> PageContent:
    """Return everything that a page shows of a Record; what cannot be read is left out with a warning."""
    tables = {
        "scores": _scores(record),
        "latency": _latency(record),
        "sizes": CellTable(("graph", "bytes"), tuple((record.bytes or {}).items())),
        "ranges": _ranges(record),
        "outliers": _outliers(record),
        "gate": _gate(record),
        "gate/distribution": _gate_distribution(record),
        "engines": _engines(record),
        "engines/latency": _engine_latency(record),
    }
    try:
        tables |= _confusion(record, outputs)
    except QexpError as error:
        warn(f"no table of predictions: {error}")
    return PageContent(
        outcome(record),
        {name: value for name, value in _summary(record) if value is not None},
        curves=dict(record.curves),
        tables={name: table for name, table in tables.items() if table.rows},
        graph=_graph(record, outputs),
    )


def _summary(record: Record) -> Iterator[tuple[str, Cell]]:
    yield "status", outcome(record)
    if outcome(record) == "interrupted":
        yield "interruption", without_secrets(reason(record))
    elif record.error:
        yield "error", without_secrets(f"{record.error['type']}: {record.error['message']}")
    for stage, scores in record.scores.items():
        for metric, score in scores.items():
            yield f"{stage}/{metric}", score
    yield from _score_losses(record)
    for name, value in (record.parity or {}).items():
        if not isinstance(value, dict | list):
            yield f"parity/{name}", cast(Cell, value)
    for graph, size in (record.bytes or {}).items():
        yield f"bytes/{graph}", size
    for quantity, value in RunView(record).measured.items():
        if quantity.name in ("memory", "load_time"):
            yield f"{quantity.name}/{quantity.stage}", value
    for graph, batches in (record.latency or {}).items():
        for batch, timing in batches.items():
            yield f"latency/{graph}/{batch}/p50_ms", timing["p50_ms"]


def _score_losses(record: Record) -> Iterator[tuple[str, float]]:
    """Yield what quantization costs in points: FP32 minus the exported graph, or else the last stage."""
    last = next((stage for stage in ("onnx", "qat", "ptq") if stage in record.scores), "fp32")
    if last == "fp32" or RunView(record).quant == "fp32":
        return
    for metric, fp32 in record.scores.get("fp32", {}).items():
        score = record.scores[last].get(metric)
        if fp32 is not None and score is not None:
            yield f"score_loss/{metric}", fp32 - score


def _scores(record: Record) -> CellTable:
    metrics = tuple(dict.fromkeys(metric for scores in record.scores.values() for metric in scores))
    rows = ((stage, *map(scores.get, metrics)) for stage, scores in record.scores.items())
    return CellTable(("stage", *metrics), tuple(rows))


def _latency(record: Record) -> CellTable:
    names = ("p50_ms", "p90_ms", "p99_ms", "samples_per_second")
    rows = (
        (graph, int(batch), *(timing[name] for name in names))  # type: ignore[literal-required]
        for graph, batches in (record.latency or {}).items()
        for batch, timing in batches.items()
    )
    return CellTable(("graph", "batch", *names), tuple(rows))


def _engines(record: Record) -> CellTable:
    """Return the table of engines: scores, gate, audit, size, memory and load time of each."""
    metrics = tuple(
        dict.fromkeys(name for engine in record.engines.values() for name in engine.get("scores", {}))
    )
    gate = ("passed", "verdict", "agreement", "metric_difference", "max_logit_difference")
    rows = (
        (
            name,
            *map(engine.get("scores", {}).get, metrics),
            *(cast(Cell, engine.get("gate", {}).get(each)) for each in gate),
            cast(Cell, engine.get("audit", {}).get("integer_share")),
            cast(Cell, engine.get("info", {}).get("bytes")),
            *map(session_numbers(engine).get, ("memory", "load_time")),
            "; ".join(f"{what}: {why}" for what, why in engine.get("problems", {}).items()),
        )
        for name, engine in record.engines.items()
    )
    costs = ("integer_share", "bytes", "memory", "load_time")
    return CellTable(("engine", *metrics, *gate, *costs, "problems"), tuple(rows))


def _engine_latency(record: Record) -> CellTable:
    names = ("p50_ms", "p90_ms", "p99_ms", "samples_per_second")
    rows = (
        (name, shape, *(timing[each] for each in names))  # type: ignore[literal-required]
        for name, engine in record.engines.items()
        for shape, timing in engine.get("latency", {}).items()
    )
    return CellTable(("engine", "shape", *names), tuple(rows))


def _ranges(record: Record) -> CellTable:
    names = ("low", "high", "seen_low", "seen_high", "sqnr")
    rows = (
        (stage, quantizer, *(values[name] for name in names))  # type: ignore[literal-required]
        for stage, quantizers in record.ranges.items()
        for quantizer, values in quantizers.items()
    )
    return CellTable(("stage", "quantizer", *names), tuple(rows))


def _outliers(record: Record) -> CellTable:
    """Return the outlier dimensions that a Record lists, and the range of all others beside them."""
    rows = (
        (quantizer, *found, each["count"], each["size"], each["others_low"], each["others_high"])
        for quantizer, each in (record.outliers or {}).items()
        for found in zip(each["dimensions"], each["low"], each["high"], strict=True)
    )
    columns = ("quantizer", "dimension", "low", "high", "count", "size", "others_low", "others_high")
    return CellTable(columns, tuple(rows))


def _gate(record: Record) -> CellTable:
    """Return quantiles of the differences between logits of engines and torch, beside those of the floor."""
    rows = (
        (name, quantile, found, gate.get("floor", {}).get("logit_differences", {}).get(quantile))
        for name, engine in record.engines.items()
        for gate in [engine.get("gate", {})]
        for quantile, found in gate.get("logit_differences", {}).items()
        if found is not None
    )
    return CellTable(("engine", "quantile", "difference", "floor"), tuple(rows))


def _gate_distribution(record: Record) -> CellTable:
    """Return the share of rows in percent by their difference to torch, of each engine and its floor."""
    rows = (
        (name, side, difference, share)
        for name, engine in record.engines.items()
        for gate in [engine.get("gate", {})]
        for side, of_side in (("engine", gate), ("floor", gate.get("floor", {})))
        if "distribution" in of_side
        for difference, share in shares_of(of_side["distribution"])
    )
    return CellTable(("engine", "side", "difference", "share"), tuple(rows))


def _confusion(record: Record, outputs: Path) -> dict[str, CellTable]:
    """Count the classes that the float and the quantized model predict together, by evaluation split.

    Raises:
        QexpError: If predictions are missing or damaged, or logits are not finite.
    """
    run = RunView(record)
    if run.find("task.kind") != "classification":
        return {}
    by_stage = evaluations(run, outputs)
    last = next((stage for stage in reversed(MODEL_STAGES) if stage in by_stage), "fp32")
    if last == "fp32":
        return {}
    classes = run.find("task.labels", ())
    tables = {}
    for split in by_stage[last].splits:
        counts = Counter(zip(*map(list, joined_rows(by_stage["fp32"], by_stage[last], split)), strict=True))
        rows = tuple((*_named(of, classes), count) for of, count in sorted(counts.items()))
        tables[f"confusion/{split}"] = CellTable(("fp32", last, "label", "rows"), rows)
    return tables


def _named(ids: Iterable[int], classes: Sequence[str]) -> tuple[Cell, ...]:
    """Return names of classes; an id without one, such as the label of an unlabelled row, stays a number."""
    return tuple(classes[each] if 0 <= each < len(classes) else str(each) for each in ids)


def _graph(record: Record, outputs: Path) -> Path | None:
    keys = [visit["key"] for visit in record.stages if visit["stage"] == ONNX]
    return Graph(outputs / "artifacts" / ONNX / keys[-1], keys[-1]).file if keys else None
