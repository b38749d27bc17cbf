"""Rows of a list of runs, with what they can be filtered and sorted by."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from qexp.errors import ConfigError
from qexp.naming import MODEL_STAGES
from qexp.records.outcome import Outcome, outcome
from qexp.reporting.aligned import aligned
from qexp.reporting.attempts import first_line, short_name
from qexp.reporting.run_names import SHORT
from qexp.reporting.run_view import RunView, leaves

COLUMNS = (
    "key", "age", "task", "model", "recipe", "quant", "method", *MODEL_STAGES, "gate", "budget", "rows",
    "seed", "tags", "status",
)  # fmt: skip
"""Columns by which runs are filtered and sorted, besides the fields of the experiment."""
_SHOWN = ("key", "age", "task", "model", "recipe", "quant", "method", *MODEL_STAGES, "gate", "tags", "trial")
_SHORTENED = ("task", "model", "recipe", "quant", "tags")
MARKS: Mapping[Outcome, str] = {"ok": " ", "failed": "x", "interrupted": "i"}
"""Mark before the key of a run, by its outcome."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def facts_of(run: RunView) -> dict[str, Any]:
    """Return what a list tells of a run, as plain JSON values; scores are of the primary metric."""
    record, metric = run.record, next(iter(run.metrics), None)
    return {
        "key": record.key,
        "finished": record.finished,
        "status": outcome(record),
        "error": first_line(run) if record.status != "ok" else None,
        "task": run.task,
        "model": run.model,
        "recipe": record.recipe,
        "quant": run.quant,
        "method": run.method,
        "metric": metric,
        "scores": {stage: of_stage.get(metric or "") for stage, of_stage in record.scores.items()},
        "gate": gate_of(run),
        "budget": run.budget,
        "rows": run.source,
        "seed": run.seed,
        "tags": list(run.tags),
        "note": run.find("note"),
    }


def gate_of(run: RunView) -> str | None:
    """Return the worst verdict of the run's gates: ``failed``, ``noise`` or ``passed``; None without one."""
    gates: list[Mapping[str, Any]] = [each["gate"] for each in run.record.engines.values() if "gate" in each]
    gates += [run.record.parity] if run.record.parity else []
    if not gates:
        return None
    if not all(gate.get("passed") for gate in gates):
        return "failed"
    return "noise" if any(gate.get("verdict") == "within noise" for gate in gates) else "passed"


def selected(runs: Sequence[RunView], filters: Sequence[tuple[str, str]]) -> list[RunView]:
    """Return the runs whose columns and fields have the wanted values, which may be globs.

    Raises:
        ConfigError: No run has a column or field of this name.
    """
    for name, _ in filters:
        _check_name(name, runs)
    return [run for run in runs if all(_has(run, name, value) for name, value in filters)]


def ordered(runs: Sequence[RunView], by: str) -> list[RunView]:
    """Return runs sorted by a column or field, of which a leading ``-`` reverses the order; none come last.

    Raises:
        ConfigError: No run has a column or field of this name.
    """
    name, reverse = by.removeprefix("-"), by.startswith("-")
    _check_name(name, runs)
    present = [run for run in runs if _value(run, name) is not None]
    absent = [run for run in runs if _value(run, name) is None]
    return [*sorted(present, key=lambda run: _sort_key(_value(run, name)), reverse=reverse), *absent]


def run_table(runs: Sequence[RunView], *, width: int, now: datetime | None = None) -> str:
    """Return the list of runs as aligned text; with :data:`MARKS` before the key."""
    now = now or datetime.now(UTC)
    rows = [_cells(run, now) for run in runs]
    return aligned(_SHOWN, rows, width=width, shorten=_SHORTENED)


def _cells(run: RunView, now: datetime) -> list[str]:
    facts = facts_of(run)
    scores: Mapping[str, float | None] = facts["scores"]
    return [
        f"{MARKS[facts['status']]} {facts['key'][:SHORT]}",
        age((now - run.record.finished_at).total_seconds()),
        run.task,
        short_name(run.model),
        facts["recipe"] or "",
        run.quant,
        run.method,
        *(_number(scores, stage) for stage in MODEL_STAGES),
        facts["gate"] or "",
        ",".join(run.tags),
        _trial(run),
    ]


def _number(scores: Mapping[str, float | None], stage: str) -> str:
    value = scores.get(stage)
    return f"{value:.2f}" if value is not None else "-" if stage in scores else ""


def _trial(run: RunView) -> str:
    """Return what makes a result no measurement: ``sample`` rows, else a ``smoke`` or limited budget."""
    return "sample" if run.is_synthetic else run.budget if run.budget != "full" else ""


def age(seconds: float) -> str:
    """Format a duration in its largest unit, such as ``3 h``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def _value(run: RunView, name: str) -> Any:
    if name == "age":
        return -run.record.finished_at.timestamp()
    facts = facts_of(run)
    if name in MODEL_STAGES:
        return facts["scores"].get(name)
    return facts[name] if name in facts else run.find(name)


def _has(run: RunView, name: str, wanted: str) -> bool:
    found = _value(run, name)
    values = found if isinstance(found, list | tuple) else [found]
    texts = {str(each).lower() for each in values}
    texts |= {short_name(text) for text in texts if name == "model"}
    texts |= {"null", "none"} if found is None else set()
    pattern = f"{wanted}*" if name == "key" else wanted
    return any(fnmatchcase(text, pattern.lower()) for text in texts)


def _sort_key(value: Any) -> tuple[int, float, str]:
    """Return a key that sorts numbers before texts."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _check_name(name: str, runs: Sequence[RunView]) -> None:
    if name in COLUMNS or name in ("note", "metric", "finished"):
        return
    fields = {path for run in runs for path, _ in leaves(run.record.experiment)}
    if name not in fields:
        nearest = difflib.get_close_matches(name, [*COLUMNS, *fields], n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ConfigError(
            f"{name}: no column or field of a run; {hint}columns are {', '.join(COLUMNS)}; fields are "
            "those of an "
            "experiment, such as finetune.epochs"
        )
