"""Tables of the engines that runtimes built from exported graphs: accuracy, speed, size and integer share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qexp.reporting.attempts import short_name
from qexp.reporting.run_view import RunView
from qexp.reporting.table import DAGGER, DOUBLE_DAGGER, KEY_LENGTH, MEBIBYTE, NOT_REQUESTED, Table, score
from qexp.reporting.tables.comparison import marked, noise_note, parity_facts
from qexp.reporting.tables.footnotes import notes_by_cause
from qexp.reporting.tables.session_cost import MEANING as MEMORY
from qexp.reporting.tables.session_cost import (
    SESSION_COLUMNS,
    has_sessions,
    session_cells,
    session_notes,
)
from qexp.reporting.verdict.speed import Drifts, drifts_of, execution_of, speed_of

if TYPE_CHECKING:
    from qexp.config import Execution

COLUMNS = (
    *("task", "model", "quant", "method", "seed", "engine", "score", "agreement (%)", "gate"),
    *("integer work (%)", "size (MiB)"),
)
FLOATS = ("fp32", "fp16", "bf16")
"""Precisions of the float model, which all runs of one fine-tune share."""
LABELS: dict[Execution, str] = {
    "simulated": " simulated",
    "stored": " weights alone",
    "widened": " as 8-bit integers",
}
"""Suffix of an engine that does not multiply integers of the run's bit-widths."""
MEANING: dict[Execution, str] = {
    "simulated": "simulated: no kernel multiplies these widths; integers are widened to 8 bits, or computed "
    "in floating point, so accuracy is that of the format and speed is not.",
    "widened": "as 8-bit integers: weights of at most 4 bits take half a byte in the file, of 5 to 7 a whole "
    "one; they are multiplied at the speed of INT8.",
    "stored": "weights alone: integers in the file, which are multiplied in floating point.",
}
READING = (
    "Score: the primary metric, of the engine itself over the whole evaluation set. Agreement: rows on which "
    "it predicts what torch predicts with the same weights and fake quantization. Gate: passed with at least "
    "99.5 % and a metric within 0.2 points, or within what one row is worth where that is more; within noise "
    "if it differs no more than torch does from itself in another arithmetic; failed if it differs "
    "otherwise.",
    "Integer work: multiply-accumulates that the engine really does in integers, from its own account. "
    "Latency: p50 in ms of a batch of rows x tokens, how many times faster than the best FP32 engine of the "
    "same run, and the larger p90/p50 of the two. Noisy latencies have no ratio.",
)

Note = tuple[str, RunView, str]
"""Cause, run, and what of the run a note is about."""


@dataclass(frozen=True)
class EngineRow:
    """Engine of one run, in one runtime and precision."""

    run: RunView
    runtime: str
    precision: str
    found: Mapping[str, Any]
    """Results of the engine in the Record (:class:`qexp.records.schema.EngineFound`)."""

    @property
    def name(self) -> str:
        """Runtime and precision, such as ``openvino/int8``."""
        return f"{self.runtime}/{self.precision}"

    @cached_property
    def execution(self) -> Execution:
        """How the runtime computes the run's bit-widths."""
        if self.precision in FLOATS:
            return "float"
        return execution_of(self.run, self.runtime)

    @property
    def simulated(self) -> bool:
        """Whether no kernel multiplies the run's bit-widths, so that accuracy is real and speed is not."""
        return self.execution == "simulated"

    def caveat(self, metric: str) -> str | None:
        """Return why a score of the engine's model, and agreement with it, says nothing; None if it does."""
        unquantized = self.precision in FLOATS and self.run.find("method.kind") != "control"
        return self.run.caveat("fp32" if unquantized else "onnx", metric)


def engine_rows(runs: Iterable[RunView]) -> list[EngineRow]:
    """Return every engine of every run, sorted by task, model, run, precision and runtime."""
    rows = [
        EngineRow(run, name.split("/")[0], name.split("/")[1], engine)
        for run in runs
        for name, engine in run.record.engines.items()
    ]
    order = [*FLOATS, "int8"]
    return sorted(
        rows,
        key=lambda row: (
            row.run.task,
            row.run.model,
            row.run.record.key,
            order.index(row.precision),
            row.runtime,
        ),
    )


def engine_tables(rows: Sequence[EngineRow]) -> list[Table]:
    """Return a table for each task, model and machine, so that only comparable measurements share one.

    How to read them stands above the first.
    """
    groups: dict[tuple[str, str, str], list[EngineRow]] = {}
    for row in rows:
        groups.setdefault((row.run.task, row.run.model, _machine(row)), []).append(row)
    tables = [_table(group, machine) for (_, _, machine), group in groups.items()]
    others = (replace(table, caption=table.caption[len(READING) :]) for table in tables[1:])
    return [*tables[:1], *others]


def _machine(row: EngineRow) -> str:
    host = row.run.record.host
    if not host or "processor" not in host:
        return ""
    gpu = f", {host['gpu']}" if host.get("gpu") else ""
    return f"{host['processor'].split(' [')[0]}, {host['threads']} threads{gpu}"


def _table(rows: Sequence[EngineRow], machine: str) -> Table:
    shapes = list(dict.fromkeys(shape for row in rows for shape in row.found.get("latency", {})))
    drifts = drifts_of(row.run for row in rows)
    measured = has_sessions(row.found for row in rows)
    columns = (*COLUMNS, *(SESSION_COLUMNS if measured else ()), *shapes)
    title = f"engines: {rows[0].run.task} {short_name(rows[0].run.model)}"
    marks = {row.run.source for row in rows if row.run.is_synthetic} | {
        row.run.budget for row in rows if row.run.budget != "full"
    }
    cells = tuple(
        (
            *_facts(row),
            *(session_cells(row.found) if measured else ()),
            *(_latency(row, shape, drifts) for shape in shapes),
        )
        for row in rows
    )
    caption = (*READING, *([MEMORY] if measured else []), *([f"Machine: {machine}."] if machine else []))
    if marks:
        caption += (f"Not a result: {' and '.join(sorted(map(str, marks)))} runs stand here too.",)
    return Table(
        title,
        columns,
        rows=cells,
        caption=caption,
        notes=(
            *notes_by_cause([*_notes(rows), *_noise(rows, shapes, drifts)]),
            *_not_measured(rows),
            *_meanings(rows),
        ),
        labels=6,
    )


def _facts(row: EngineRow) -> tuple[str, ...]:
    run, results = row.run, row.found
    gate, audit, info = results.get("gate"), results.get("audit"), results.get("info")
    scores: Mapping[str, float | None] = results.get("scores", {})
    metric = next(iter(run.metrics), "")
    return (
        run.task,
        short_name(run.model),
        run.quant if row.precision not in FLOATS else "fp32",
        run.method if row.precision not in FLOATS else NOT_REQUESTED,
        str(run.seed),
        f"{row.name}{LABELS.get(row.execution, '')}",
        marked(score(scores[metric]), row.caveat(metric)) if metric in scores else NOT_REQUESTED,
        NOT_REQUESTED if gate is None or gate["agreement"] is None else f"{gate['agreement']:.2f}",
        NOT_REQUESTED if gate is None else _verdict(gate),
        NOT_REQUESTED if audit is None else f"{audit['integer_share']:.1f}",
        NOT_REQUESTED if info is None else f"{info['bytes'] / MEBIBYTE:.2f}",
    )


def _verdict(gate: Mapping[str, Any]) -> str:
    """Return the verdict in one word; Records older than the noise floor only store whether it passed."""
    if not gate["passed"]:
        return f"failed {DAGGER}"
    return str(gate.get("verdict", "passed"))


def _latency(row: EngineRow, shape: str, drifts: Drifts) -> str:
    """Format a median with its ratio and spread; no ratio where no kernel computes it, or it is noisy."""
    speed = speed_of(row.run, row.name, drifts, shape)
    if speed.ms is None:
        return f"refused {DAGGER}" if shape in row.found.get("problems", {}) else NOT_REQUESTED
    if speed.kind == "noisy":
        return f"{speed.ms:.2f} (noisy)"
    ratio = "" if speed.ratio is None else f" ({speed.ratio:.2f}x, p90/p50 {speed.spread:.2f})"
    return f"{speed.ms:.2f}{ratio}"


def _noise(rows: Sequence[EngineRow], shapes: Sequence[str], drifts: Drifts) -> Iterator[Note]:
    """Yield the reason of each noisy latency."""
    for row in rows:
        for shape in shapes:
            speed = speed_of(row.run, row.name, drifts, shape)
            if speed.kind == "noisy":
                reason, own = speed.shared_reason
                yield f"noisy, {reason}", row.run, f"{row.name} {shape}{own and f' ({own})'}"


def _not_measured(rows: Sequence[EngineRow]) -> list[str]:
    """Return notes on engines without memory or load time, and why."""
    return session_notes({f"{row.run.record.key[:KEY_LENGTH]} {row.name}": row.found for row in rows})


def _notes(rows: Sequence[EngineRow]) -> Iterator[Note]:
    for row in rows:
        gate = row.found.get("gate")
        if gate and not gate["passed"]:
            why = "; ".join([parity_facts(gate), *gate.get("reasons", [])])
            bisect = f"qexp bench {row.run.record.key[:KEY_LENGTH]} --bisect"
            yield f"{DAGGER} departs from torch ({why}); {bisect} names the layer", row.run, row.name
        elif gate and gate.get("verdict") == "within noise":
            yield noise_note(gate), row.run, row.name
        for what, why in row.found.get("problems", {}).items():
            yield f"{DAGGER} {why}", row.run, f"{row.name} {what}"
    for row in rows:
        if row.found.get("scores") and (doubt := row.caveat(next(iter(row.run.metrics), ""))):
            yield f"{DOUBLE_DAGGER} {doubt}, so agreement says as little", row.run, row.name


def _meanings(rows: Sequence[EngineRow]) -> list[str]:
    executions = {row.execution for row in rows}
    return [meaning for kind, meaning in MEANING.items() if kind in executions]
