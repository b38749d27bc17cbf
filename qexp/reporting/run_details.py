"""Texts on one run, and on what two runs differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qexp.console import shown_path
from qexp.naming import MODEL_STAGES
from qexp.records.outcome import outcome, reason
from qexp.records.record import Record, records_folder
from qexp.records.schema import Timing, describe_kept
from qexp.reporting.aligned import aligned
from qexp.reporting.command import command_of
from qexp.reporting.run_list import gate_of
from qexp.reporting.run_names import SHORT, summary
from qexp.reporting.run_view import RunView, leaves
from qexp.reporting.table import MEBIBYTE

_UNSHOWN = ("tags", "note", "tracker.", "machine.progress", "machine.checkpoint_seconds")
_FILES = (".onnx", ".safetensors", ".parquet")
"""Endings of files that a reader may want: graphs, weights and ranges, predictions."""
ABSENT = "-"
_UNSET = {ABSENT, "null", "[]"}
"""Values of a setting that says nothing, which Records of older versions do not have."""


def details(run: RunView, outputs: Path, defaults: Mapping[str, Any] | None, *, width: int) -> str:
    """Return everything that matters of a run, in sections.

    Args:
        run: Run to show.
        outputs: Folder that it wrote to.
        defaults: Experiment of the same task with nothing else chosen; None if it cannot be composed.
        width: Characters of a line.
    """
    sections = [
        _head(run),
        _section("settings that differ from the defaults", _settings(run, defaults, width)),
        _section("scores in percent", _scores(run, width)),
        _section("weights that were kept", _kept(run.record)),
        _section("engines", _costs(run, width)),
        _section("stages", _stages(run, width)),
        _section("files", "".join(f"  {path}\n" for path in files_of(run.record, outputs))),
        _section("warnings", "".join(f"  {each}\n" for each in run.record.warnings)),
    ]
    return "\n".join(filter(None, sections))


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body else ""


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def _head(run: RunView) -> str:
    record = run.record
    lines = [f"{summary(run)}", f"key: {record.key}", f"finished: {record.finished[:19]}"]
    if record.error is not None:
        interrupted = outcome(record) == "interrupted"
        error = f"FAILED: {record.error['type']}: {record.error['message']}"
        lines.append(f"status: {reason(record)}" if interrupted else error)
    lines += [
        f"{name}: {value}" for name, value in (("recipe", record.recipe), ("note", run.find("note"))) if value
    ]
    if record.data:
        rows = ", ".join(f"{count} {split}" for split, count in record.data.get("rows", {}).items())
        lines.append(f"rows: {record.data['source']}, {rows}")
    if gate := gate_of(run):
        lines.append(f"gate: {gate}")
    lines.append(f"again: {command_of(run)}")
    return "".join(f"{line}\n" for line in lines)


def _kept(record: Record) -> str:
    lines = (f"  {name}: {describe_kept(found)}\n" for name, found in record.selection.items())
    return "".join(lines)


def _settings(run: RunView, defaults: Mapping[str, Any] | None, width: int) -> str:
    if defaults is None:
        return "  not known: the configuration of its task cannot be composed any more\n"
    rows = list(setting_differences(defaults, run.record.experiment))
    if not rows:
        return "  none\n"
    return _indented(
        aligned(("setting", "default", "run"), rows, width=width - 2, shorten=("default", "run"))
    )


def setting_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], ignored: Sequence[str] = _UNSHOWN
) -> Iterator[tuple[str, str, str]]:
    """Yield path and both values of each setting in which two experiments differ.

    Of sections of different kinds, only what both have is compared.
    """
    values, others = dict(leaves(first)), dict(leaves(second))
    changed = tuple(
        path.removesuffix("kind")
        for path in values
        if path.endswith(".kind") and others.get(path) != values[path]
    )
    for path in dict.fromkeys([*values, *others]):
        if path.startswith(changed) and (path not in values or path not in others):
            continue
        one, other = (_printed(each.get(path, ABSENT)) for each in (values, others))
        if one != other and not {one, other} <= _UNSET and not path.startswith(tuple(ignored)):
            yield path, one, other


def _printed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_printed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _scores(run: RunView, width: int) -> str:
    scores = run.record.scores
    rows = [
        (stage, *(_percent(of_stage.get(name)) for name in run.metrics)) for stage, of_stage in scores.items()
    ]
    text = _indented(aligned(("stage", *run.metrics), rows, width=width - 2)) if rows else ""
    caveats = {
        f"  {stage}: {reason}\n"
        for stage, of_stage in run.record.caveats.items()
        for reason in of_stage.values()
    }
    return text + "".join(sorted(caveats))


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def _costs(run: RunView, width: int) -> str:
    sizes, latency = run.record.bytes or {}, run.record.latency or {}
    batches = list(dict.fromkeys(batch for of_graph in latency.values() for batch in of_graph))
    rows = [
        (
            graph,
            f"{sizes[graph] / MEBIBYTE:.1f}" if graph in sizes else ABSENT,
            *(_milliseconds(latency.get(graph, {}).get(batch)) for batch in batches),
        )
        for graph in dict.fromkeys([*sizes, *latency])
    ]
    columns = ("graph", "MiB", *(f"p50 ms, batch {batch}" for batch in batches))
    return _indented(aligned(columns, rows, width=width - 2)) if rows else ""


def _milliseconds(timing: Timing | None) -> str:
    return f"{timing['p50_ms']:.2f}" if timing else ABSENT


def _stages(run: RunView, width: int) -> str:
    rows = [
        (each["stage"], each["state"], f"{each['seconds']:.1f}", each["key"][:12])
        for each in run.record.stages
    ]
    return (
        _indented(aligned(("stage", "state", "seconds", "artifact"), rows, width=width - 2)) if rows else ""
    )


def files_of(record: Record, outputs: Path) -> Iterator[str]:
    """Yield the paths of a run's Record, graphs, weights, ranges and predictions, as far as they exist."""
    yield str(shown_path(records_folder(outputs) / f"{record.key}.json"))
    for visit in {(each["stage"], each["key"]): each for each in record.stages}.values():
        folder = outputs / "artifacts" / visit["stage"] / visit["key"]
        if not folder.is_dir():
            yield f"{shown_path(folder)} (gone)"
        for file in sorted(folder.rglob("*")):
            if file.suffix in _FILES and "token" not in visit["stage"]:
                yield str(shown_path(file))


def differences(first: RunView, second: RunView, *, width: int) -> str:
    """Return the settings, origins and scores in which two runs differ, as aligned text."""
    keys = tuple(run.record.key[:SHORT] for run in (first, second))
    settings = [
        *setting_differences(
            first.record.experiment, second.record.experiment, ignored=("machine.progress",)
        ),
        *setting_differences(_origin(first.record), _origin(second.record), ignored=()),
    ]
    head = "".join(f"{key}  {summary(run)}\n" for key, run in zip(keys, (first, second), strict=True))
    table = aligned(("setting", *keys), settings, width=width - 2, shorten=keys) if settings else "none\n"
    scores = aligned(("score", *keys, "difference"), _score_rows(first, second), width=width - 2)
    return "\n".join([head, _section("settings", _indented(table)), _section("scores", _indented(scores))])


def _origin(record: Record) -> dict[str, Any]:
    """Return what results come from besides the settings: rows, checkpoint, versions and commit."""
    return {
        "rows": record.data and record.data["source"],
        "rows.fingerprint": record.data and record.data["fingerprint"][:12],
        "checkpoint": record.model and str(record.model.get("fingerprint"))[:12],
        "recipe": record.recipe,
        "status": record.status,
        "commit": record.git and record.git["commit"][:12],
        "version": dict(record.versions),
    }


def _score_rows(first: RunView, second: RunView) -> list[tuple[str, str, str, str]]:
    rows = []
    for stage in (*MODEL_STAGES, "onnx"):
        for metric in dict.fromkeys([*first.metrics, *second.metrics]):
            values = [run.record.scores.get(stage, {}).get(metric) for run in (first, second)]
            if values == [None, None]:
                continue
            one, other = values
            change = ABSENT if one is None or other is None else f"{other - one:+.2f}"
            rows.append((f"{stage} {metric}", _percent(one), _percent(other), change))
    for graph in dict.fromkeys([*(first.record.bytes or {}), *(second.record.bytes or {})]):
        sizes = [(run.record.bytes or {}).get(graph) for run in (first, second)]
        cells = [ABSENT if size is None else f"{size / MEBIBYTE:.2f}" for size in sizes]
        rows.append((f"{graph} MiB", *cells, ""))  # type: ignore[arg-type]
    return [(row[0], row[1], row[2], row[3]) for row in rows]
