"""Tables of one run: its scores, and its engines with what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qexp.records.outcome import outcome
from qexp.records.record import Record
from qexp.records.schema import ParityResult
from qexp.reporting import table as text
from qexp.reporting.attempts import first_line, short_name
from qexp.reporting.fit import shortened
from qexp.reporting.run_view import STAGES_OF_METHOD, Quantity, RunView
from qexp.reporting.table import DAGGER, DOUBLE_DAGGER, KEY_LENGTH, MEBIBYTE, NOT_REQUESTED, Table
from qexp.reporting.tables.comparison import (
    STAGES,
    WARNINGS,
    caveat_notes,
    noise_note,
    parity_facts,
    parity_note,
)
from qexp.reporting.tables.session_cost import (
    MEANING,
    SESSION_COLUMNS,
    has_sessions,
    session_cells,
    session_notes,
)
from qexp.reporting.verdict.speed import engines_of, shape_of, shape_words, speed_of, spread_of

COSTS = ("engine", "size (MiB)", *SESSION_COLUMNS, "p50 (ms)", "speedup", "p90/p50", "gate")
"""Columns of the table of engines; the speedup is against the fastest FP32 engine of the run."""
WHY = "why"
"""Column with the reason where a latency is missing or has no ratio."""


SIMULATED = (
    "simulated: no kernel multiplies such activations; latency is that of wider numbers in their place."
)


LONGEST = 40
"""Most characters of a name in a title."""


def run_tables(record: Record) -> list[Table]:
    """Return the tables of one run: scores, and engines if it exported any; notes are below the last."""
    costs = cost_table(record)
    return [final_table(record), *([costs] if costs else [])]


def final_table(record: Record) -> Table:
    """Return the scores of one run, with one line for each metric, the primary one first."""
    run = RunView(record)
    stages = _stages(run)
    columns = ("metric", *(STAGES[stage] for stage in stages), f"{STAGES[stages[-1]]}-FP32")
    rows = tuple((metric, *_scores(run, metric)) for metric in run.metrics or (NOT_REQUESTED,))
    return Table(title_of(run), columns, rows, notes=_notes(run))


def title_of(run: RunView) -> str:
    """Return the facts of a run in a line, with the beginning of its key."""
    data = f"data {run.source or 'never found'}{f', {run.budget} budget' if run.budget != 'full' else ''}"
    key = run.record.key[:KEY_LENGTH]
    names = "  ".join(shortened(each, LONGEST) for each in (run.task, short_name(run.model), run.quant))
    return f"{names}  {data}, seed {run.seed}  run {key}"


def cost_table(record: Record) -> Table | None:
    """Return what each engine of a run costs, or None if it has none."""
    run = RunView(record)
    engines = engines_of(run)
    if not engines:
        return None
    rows = [_costs(run, name, found) for name, found in engines.items()]
    measured = has_sessions(engines.values())
    empty = {*([] if measured else SESSION_COLUMNS), *([] if any(row[WHY] for row in rows) else [WHY])}
    columns = tuple(name for name in (*COSTS, WHY) if name not in empty)
    cells = tuple(tuple(row[name] for name in columns) for row in rows)
    notes = [SIMULATED] if any("simulated" in row for row in cells) else []
    timed = any(found.get("latency") for found in engines.values())
    caption = [f"Latency: {shape_words(shape_of(run))}{_machine(record)}."] if timed else []
    caption += [MEANING] if measured else []
    notes += session_notes(engines)
    return Table("engines", columns, cells, caption=tuple(caption), notes=tuple(notes), prose=WHY)


def _machine(record: Record) -> str:
    host = record.host or {}
    processor = str(host.get("processor", "")).split(" [")[0]
    return f", {processor}, {host.get('threads')} threads" if processor else ""


def _costs(run: RunView, name: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of an engine by column."""
    precision, speed = name.split("/")[1], speed_of(run, name)
    timing = found.get("latency", {}).get(speed.shape)
    own = timing and f"{spread_of(timing):.2f}"
    kind = speed.kind if timing or run.deploy != "onnx" else NOT_REQUESTED
    ratio = f"{speed.ratio:.2f}x" if speed.ratio is not None else kind
    if name == speed.baseline:
        ratio = NOT_REQUESTED
    cells = (
        name,
        _file_size(run, precision, found),
        *session_cells(found),
        f"{timing['p50_ms']:.2f}" if timing else kind,
        ratio,
        own or NOT_REQUESTED,
        _gate(found),
        "" if speed.kind == "simulated" or name == speed.baseline else speed.reason,
    )
    return dict(zip((*COSTS, WHY), cells, strict=True))


def _file_size(run: RunView, precision: str, found: Mapping[str, Any]) -> str:
    size = (run.record.bytes or {}).get(precision) or found.get("info", {}).get("bytes")
    return f"{size / MEBIBYTE:.2f}" if size else NOT_REQUESTED


def _gate(found: Mapping[str, Any]) -> str:
    gate = found.get("gate")
    if not gate:
        return NOT_REQUESTED
    return str(gate.get("verdict", "passed")) if gate["passed"] else f"failed {DAGGER}"


def _stages(run: RunView) -> Sequence[str]:
    return STAGES_OF_METHOD["control" if run.method == "control" else "qat"]


def _scores(run: RunView, metric: str) -> list[str]:
    stages = _stages(run)
    cells = [_number(run, Quantity("score", stage, metric)) for stage in stages]
    return [*cells, _number(run, Quantity("difference", f"{stages[-1]}-fp32", metric))]


def _number(run: RunView, quantity: Quantity) -> str:
    if quantity not in run.measured:
        return _absent(run, quantity)
    printed = text.points if quantity.name == "difference" else text.score
    parity = run.record.parity
    broken = quantity.name == "score" and quantity.stage == run.stages[-1] and parity and not parity["passed"]
    doubtful = quantity.name == "score" and run.caveat(quantity.stage, quantity.metric)
    mark = f" {DOUBLE_DAGGER}" if doubtful else ""
    return printed(run.measured[quantity]) + mark + (f" {DAGGER}" if broken else "")


def _absent(run: RunView, *quantities: Quantity) -> str:
    if run.promised.isdisjoint(quantities):
        return NOT_REQUESTED
    ended = outcome(run.record)
    return "missing" if ended == "ok" else ended


def _notes(run: RunView) -> tuple[str, ...]:
    marks = (["sample"] if run.is_synthetic else []) + [run.budget]
    notes = [WARNINGS[mark] for mark in marks if mark in WARNINGS]
    if run.record.status == "failed":
        why = first_line(run)
        notes.append(why if outcome(run.record) == "interrupted" else f"failed: {why}")
    notes += caveat_notes([run], named=False)
    parity = run.record.parity
    if parity:
        notes.append(_gate_note(run, parity))
    return tuple(notes)


def _gate_note(run: RunView, parity: ParityResult) -> str:
    if not parity["passed"]:
        return parity_note(run)
    if parity.get("verdict") == "within noise":
        return noise_note(parity)
    last = run.metrics and run.caveat("onnx", run.metrics[0])
    doubt = f" {DOUBLE_DAGGER} This says as little as the score: {last}." if last else ""
    return f"The exported graph reproduces the score: {parity_facts(parity)}.{doubt}"
