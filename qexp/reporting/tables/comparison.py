"""Tables of comparisons, with captions and footnotes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from qexp.naming import MODEL_TITLES
from qexp.records.outcome import outcome
from qexp.records.schema import with_metrics
from qexp.reporting import table as text
from qexp.reporting.attempts import describe, first_line, short_name
from qexp.reporting.comparison import Cell, Comparison, Row
from qexp.reporting.run_view import TRAINED, Quantity, RunView
from qexp.reporting.settings import label
from qexp.reporting.table import DAGGER, DOUBLE_DAGGER, KEY_LENGTH, NOT_REQUESTED, Table, joined
from qexp.reporting.tables.footnotes import Footnotes, more
from qexp.reporting.tables.session_cost import MEANING, SESSION_COLUMNS
from qexp.reporting.tables.skipped_rows import skipped_notes
from qexp.reporting.verdict.speed import Drifts, drifts_of, shape_of, shape_words, speed_of

STAGES = MODEL_TITLES
DOUBTFUL = f"{DOUBLE_DAGGER} a score that says nothing of its model; why is told below the task's table"
"""Titles of the stages, in the order of :data:`qexp.naming.MODEL_STAGES`."""
WARNINGS = {
    "sample": "sample: made-up rows. These numbers say nothing about the task itself.",
    "smoke": "smoke: a few steps and rows. These numbers show that the line runs, nothing more.",
    "limited": "limited: the budget is called full, but a limit on the work is set.",
}
MISSING = "missing"
SESSIONS = {"memory": (SESSION_COLUMNS[0], text.size), "load_time": (SESSION_COLUMNS[1], text.latency)}
"""Columns of memory and load time, with the form of their pairs, by quantity."""


def table_of(comparison: Comparison) -> Table:
    """Return the table of a comparison, ready for output."""
    columns = _score_columns(comparison)
    kinds = {quantity.name for row in comparison.rows for quantity in row.cells}
    show_latency = "latency" in kinds or any(row.simulated for row in comparison.rows)
    recipes = [_recipe(row) for row in comparison.rows]
    header = [
        "model",
        "quant",
        "key",
        *(["recipe"] * (len({*recipes}) > 1)),
        *map(label, comparison.split.columns),
    ]
    header += [title for title, _ in columns]
    sessions = [name for name in SESSIONS if name in kinds]
    header += ["size (MiB)"] * ("size" in kinds) + [SESSIONS[name][0] for name in sessions]
    header += ["latency (ms)"] * show_latency + ["seeds"]
    names, footnotes = model_names(row.model for row in comparison.rows), Footnotes()
    drifts, rows = drifts_of(run for row in comparison.rows for run in row.runs), []
    for row, recipe in zip(comparison.rows, recipes, strict=True):
        cells = [
            names[row.model],
            row.quant,
            _keys(row),
            *([recipe] * ("recipe" in header)),
            *comparison.columns_of(row),
        ]
        cells += [_score(row, quantity, footnotes) for _, quantity in columns]
        cells += [_pair(row, "size", text.size, footnotes)] * ("size" in kinds)
        cells += [_pair(row, name, SESSIONS[name][1], footnotes) for name in sessions]
        cells += [_latency(row, drifts, footnotes)] * show_latency + [
            _seeds(row, comparison.seeds, footnotes)
        ]
        rows.append(tuple(cells))
    notes = (
        *footnotes.lines(),
        *_parity_notes(comparison.rows),
        *caveat_notes(run for row in comparison.rows for run in row.runs),
        *skipped_notes(run for row in comparison.rows for run in row.runs),
        *comparison.split.follows,
        *comparison.notes,
    )
    notes += tuple(
        f"{outcome(run.record)} before it began: {describe(run)}: {first_line(run)}"
        for run in comparison.refused
    )
    caption = _caption(
        comparison, names, columns=columns, with_size="size" in kinds, with_latency="latency" in kinds
    )
    return Table(title(comparison), tuple(header), rows=tuple(rows), caption=caption, notes=notes, labels=3)


def _keys(row: Row) -> str:
    """Return the beginning of the key of a row's first run, and how many runs of other seeds there are."""
    keys = [of_seed.best.record.key[:KEY_LENGTH] for of_seed in row.by_seed.values() if of_seed.best]
    keys = keys or [run.record.key[:KEY_LENGTH] for run in row.runs]
    return f"{keys[0]} +{len(keys) - 1}" if len(keys) > 1 else joined(keys) or NOT_REQUESTED


def _recipe(row: Row) -> str:
    """Return the recipes that a row's runs requested; other overrides may have changed their effect."""
    return joined(sorted({run.record.recipe for run in row.runs if run.record.recipe})) or NOT_REQUESTED


def title(comparison: Comparison) -> str:
    """Return a title such as ``mrpc``, with ``sample``, ``smoke`` or ``limited`` if that applies."""
    marks = ["sample"] * comparison.is_synthetic + [comparison.budget] * (comparison.budget != "full")
    return ", ".join((comparison.task, *marks))


def _score_columns(comparison: Comparison) -> list[tuple[str, Quantity]]:
    """Return the columns that at least one row has; only the primary metric has differences."""
    quantities = {quantity for row in comparison.rows for quantity in row.cells}
    prefix = {metric: f"{metric} " if len(comparison.metrics) > 1 else "" for metric in comparison.metrics}
    columns = [
        (prefix[metric] + name, Quantity("score", stage, metric))
        for metric in comparison.metrics
        for stage, name in STAGES.items()
    ]
    columns += [
        (f"{STAGES[stage]}-FP32", Quantity("difference", f"{stage}-fp32", metric))
        for metric in comparison.metrics[:1]
        for stage in TRAINED
    ]
    return [(name, quantity) for name, quantity in columns if quantity in quantities]


def model_names(models: Iterable[str]) -> dict[str, str]:
    """Return the last part of each model's name, or the full name where that is ambiguous."""
    unique = set(models)
    counts = Counter(map(short_name, unique))
    return {model: short_name(model) if counts[short_name(model)] == 1 else model for model in unique}


def _score(row: Row, quantity: Quantity, footnotes: Footnotes) -> str:
    cell = row.cells.get(quantity)
    printed = text.points if quantity.name == "difference" else text.score
    if cell is None or not cell.numbers:
        return without_number(cell, footnotes)
    shown = printed(cell.median)
    if len(cell.numbers) > 1:
        shown += f" ({printed(cell.numbers[0])}..{printed(cell.numbers[-1])})"
    if len(cell.numbers) not in (len(row.seeds), 0):
        shown += f" n={len(cell.numbers)}"
    if None in cell.values.values():
        shown += ", else undefined"
    if quantity.name == "score" and row.is_doubtful(quantity.stage, quantity.metric):
        shown += f" {DOUBLE_DAGGER}"
    exported = quantity.name == "score" and any(quantity.stage == run.stages[-1] for run in row.broken_parity)
    return f"{shown} {DAGGER}" if exported else shown


def without_number(cell: Cell | None, footnotes: Footnotes) -> str:
    """Return the reason why a cell has no number."""
    if cell is None:
        return NOT_REQUESTED
    if cell.failed:
        return footnotes.mark(list(cell.failed.values()))
    return "undefined" if cell.values else MISSING if cell.missing else NOT_REQUESTED


def _pair(
    row: Row,
    name: str,
    printed: Callable[[float | None, float | None], str],
    footnotes: Footnotes,
    which: tuple[str, str] = ("", ""),
) -> str:
    """Format the medians of the FP32 and INT8 graphs, or the reason why they are missing."""
    cells = [row.cells.get(Quantity(name, graph, *which)) for graph in ("fp32", "int8")]  # type: ignore[arg-type]
    fp32, int8 = (cell.median if cell else None for cell in cells)
    if fp32 is None and int8 is None:
        return without_number(next((cell for cell in cells if cell), None), footnotes)
    lost = int8 is None and cells[1] is not None
    return f"{printed(fp32, int8)} -> {without_number(cells[1], footnotes)}" if lost else printed(fp32, int8)


def _latency(row: Row, drifts: Drifts, footnotes: Footnotes) -> str:
    """Format the latencies, their ratio with the spread, or why there is none."""
    shown = _pair(row, "latency", printed=text.latency, footnotes=footnotes, which=("p50_ms", "1"))
    bare = shown.partition(" (")[0]
    if row.simulated:
        return "simulated" if shown == NOT_REQUESTED else f"{bare} simulated"
    runs = [of_seed.best for of_seed in row.by_seed.values() if of_seed.best]
    speeds = [(run, speed_of(run, f"{run.find('deploy.runtimes', ['?'])[0]}/int8", drifts)) for run in runs]
    if shown == MISSING:
        return f"{MISSING} {footnotes.explain((run, speed.reason) for run, speed in speeds)}".strip()
    noisy = [(run, *speed.shared_reason) for run, speed in speeds if speed.kind == "noisy"]
    if noisy:
        return f"{bare} noisy {footnotes.explain(noisy)}"
    spreads = [speed.spread for _, speed in speeds if speed.spread is not None and speed.ratio]
    return shown.replace("x)", f"x, p90/p50 {max(spreads):.2f})") if spreads else shown


def _seeds(row: Row, seeds: Sequence[int], footnotes: Footnotes) -> str:
    """Return the number of seeds, such as ``3``, or ``1 of 3: seed 2 failed [1]; seed 3 missing``."""
    if len(row.seeds) == len(seeds):
        return str(len(seeds))
    shown = f"{len(row.seeds)} of {len(seeds)}"
    absent = [seed for seed in seeds if seed not in row.by_seed]
    failed = [seed for seed in row.by_seed if seed not in row.seeds]
    marks = (
        [f"{_named(failed)} {footnotes.mark([row.by_seed[seed].failed[0] for seed in failed])}"]
        if failed
        else []
    )
    marks += [f"{_named(absent)} {MISSING}"] if absent and row.by_seed else []
    return f"{shown}: {'; '.join(marks)}" if marks else shown


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {joined(seeds)}"


def parity_note(run: RunView) -> str:
    """Describe a failed gate in one line."""
    parity: Mapping[str, Any] = run.record.parity or {}
    why = "; ".join([parity_facts(parity), *parity.get("reasons", [])])
    return (
        f"{DAGGER} {describe(run)}: the exported graph does not reproduce this score ({why}); do not deploy "
        "it on the strength of this table"
    )


def caveat_notes(runs: Iterable[RunView], *, named: bool = True) -> list[str]:
    """Return notes on scores that are uninformative about their models, one for each stage and reason.

    Args:
        runs: Runs whose Records may have such scores.
        named: Whether a note names its runs.
    """
    notes: dict[str, dict[str, None]] = {}
    for run in runs:
        for stage, of_stage in run.record.caveats.items():
            for note in with_metrics(of_stage):
                notes.setdefault(f"{STAGES.get(stage, stage)} {note}", {})[describe(run)] = None
    return [
        f"{DOUBLE_DAGGER} {note}"
        + (f" ({'; '.join([*descriptions][:3])}{more([*descriptions][3:])})" if named else "")
        for note, descriptions in notes.items()
    ]


def marked(shown: str, doubtful: object) -> str:
    """Return a cell with the mark of a score that is uninformative about its model, if it is one."""
    return f"{shown} {DOUBLE_DAGGER}" if doubtful else shown


def doubt_notes(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the note on :func:`marked` cells; none where no cell is marked."""
    return [DOUBTFUL] if any(DOUBLE_DAGGER in cell for row in rows for cell in row) else []


def noise_note(parity: Mapping[str, Any]) -> str:
    """Describe a gate within noise in one line, together with the noise floor."""
    floor = parity["floor"] | {"max_logit_difference": parity["floor"]["logit_differences"]["max"]}
    return (
        f"The exported graph differs from torch as rounding noise does: {parity_facts(parity)}. Noise floor "
        f"(torch in another arithmetic): {parity_facts(floor)}."
    )


def parity_facts(parity: Mapping[str, Any]) -> str:
    """List the numbers of a gate or of a noise floor."""
    facts = [
        f"{words} {value:.4g}{unit}"
        for name, words, unit in (
            ("agreement", "predictions agree on", " %"),
            ("metric_difference", "metrics differ by up to", " points"),
            ("max_logit_difference", "logits differ by up to", ""),
        )
        if isinstance(value := parity.get(name), int | float)
    ]
    if isinstance(cosine := (parity.get("cosines") or {}).get("min"), int | float):
        facts.append(f"cosines of embeddings are at least {cosine:.4g}")
    return joined(facts) or "no numbers recorded"


def _parity_notes(rows: Sequence[Row]) -> list[str]:
    return [parity_note(run) for row in rows for run in row.broken_parity]


def _caption(
    comparison: Comparison,
    names: dict[str, str],
    columns: Sequence[tuple[str, Quantity]],
    with_size: bool,
    with_latency: bool,
) -> tuple[str, ...]:
    marks = ["sample"] * comparison.is_synthetic + [comparison.budget]
    warnings = [f"**{WARNINGS[mark]}**" for mark in marks if mark in WARNINGS]
    source = joined(comparison.sources) or "never found"
    facts = [f"Data: {source}. Budget: {comparison.budget}. Seeds: {joined(comparison.seeds)}."]
    facts += [f"{names[model]} is {model}." for model in sorted(names) if names[model] != model]
    recipes = {_recipe(row) for row in comparison.rows} - {NOT_REQUESTED}
    if len(recipes) == 1 and all(_recipe(row) in recipes for row in comparison.rows):
        facts.append(f"Recipe: {joined(list(recipes))}.")
    if comparison.split.common:
        settings = (f"{label(path)} {value}" for path, value in comparison.split.common.items())
        facts.append(f"All rows: {', '.join(settings)}.")
    reading = ["Scores in percent: median over the seeds, and (smallest..largest) where there are several."]
    if differences := [word for word, quantity in columns if quantity.name == "difference"]:
        titles = " and ".join(differences)
        reading.append(f"{titles}: points of {comparison.metrics[0]}, paired by seed, then the median.")
    if any(quantity.stage == "control" for _, quantity in columns):
        reading.append("control: the FP32 model, trained on without quantizers.")
    reading += ["Size: ONNX file, FP32 -> INT8."] if with_size else []
    reading += [MEANING] * any(each.name in SESSIONS for row in comparison.rows for each in row.cells)
    reading += [_latency_words(comparison)] if with_latency else []
    reading += ["Costs: median over the seeds that have them; spread in the CSV."] if with_size else []
    if any(row.simulated for row in comparison.rows):
        reading.append("simulated: no kernel multiplies such activations; latency is that of wider numbers.")
    return (*warnings, " ".join(facts), " ".join(reading))


def _latency_words(comparison: Comparison) -> str:
    runs = [of_seed.best for row in comparison.rows for of_seed in row.by_seed.values() if of_seed.best]
    timed = [run for run in runs if run.record.latency]
    shapes = sorted({shape_words(shape_of(run)).partition(", ")[2] for run in timed})
    runtimes = sorted({run.find("deploy.runtimes", ["?"])[0] for run in timed})
    at = f", {' or '.join(shapes)}, {' or '.join(runtimes)}" if timed else ""
    return f"Latency: p50 of batch 1{at}, FP32 -> INT8."
