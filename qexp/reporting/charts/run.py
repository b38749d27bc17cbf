"""Charts of single runs: training curves, noise and ranges of activations, and the gate of engines."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from qexp.records.outcome import outcome
from qexp.records.schema import ActivationRange
from qexp.reporting.charts.comparison import last_stage, names_of
from qexp.reporting.charts.spec import (
    Axis,
    Dot,
    HeatMap,
    Lane,
    Mark,
    RangeChart,
    Series,
    Tile,
    XYChart,
    scale_of,
)
from qexp.reporting.comparison import Comparison, Row
from qexp.reporting.run_view import Quantity, RunView
from qexp.reporting.tables.comparison import title

MOST_OF_TASK, MOST_RUNS = 8, 24
"""Maximum number of runs that are shown one by one: of a task, and in total."""
NOISIEST = 20
MOST_RANGES = 120
SMALLEST = 1e-9
"""Differences of logits below this one are shown at it, so that an exact result has a place, too."""


@dataclass(frozen=True)
class ShownRun:
    """A run with charts of its own."""

    run: RunView
    group: str
    """Label by which a reader selects it."""


def chosen_runs(comparisons: Sequence[Comparison]) -> tuple[list[ShownRun], int]:
    """Return the best run of each row, best rows first, and the number of runs that are left out.

    Tasks take turns until the maximum number of runs is reached. A failed run is chosen only if its row has
    no other.
    """
    by_task = [list(_best_of(comparison)) for comparison in comparisons]
    in_turn = chain.from_iterable(zip_longest(*(runs[:MOST_OF_TASK] for runs in by_task)))
    kept = {id(each) for each in [each for each in in_turn if each][:MOST_RUNS]}
    shown = [each for runs in by_task for each in runs if id(each) in kept]
    return shown, sum(_count(comparison) for comparison in comparisons) - len(shown)


def curves_chart(chosen: ShownRun) -> XYChart | None:
    """Return the loss over the steps of each training of a run; None without a curve."""
    series = tuple(
        Series(
            name,
            tuple(Dot(step, loss) for step, loss in zip(curve["step"], curve["loss"], strict=False)),
            index,
            "line",
        )
        for index, (name, curve) in enumerate(chosen.run.record.curves.items())
        if curve["step"] and curve["loss"]
    )
    if not series:
        return None
    losses = [dot.y for each in series for dot in each.dots]
    y = Axis("loss", scale_of(losses))
    return XYChart(
        f"{chosen.group}-curves",
        chosen.group,
        title=f"{chosen.group}: loss",
        x=Axis("step"),
        y=y,
        series=series,
    )


def noise_chart(chosen: ShownRun) -> RangeChart | None:
    """Return the signal to quantization noise ratio of a run's noisiest activations; None without any."""
    stage, ranges = _last_ranges(chosen.run, ("sqnr",))
    values = {name: value for name, each in ranges.items() if (value := each["sqnr"]) is not None}
    words = f"{chosen.group}: signal to quantization noise of each activation, {stage}"
    return lowest_chart(
        values, f"{chosen.group}-noise", group=chosen.group, words=words, axis="SQNR (dB), more is better"
    )


def lowest_chart(
    values: Mapping[str, float], name: str, group: str, words: str, axis: str
) -> RangeChart | None:
    """Return a chart of the lowest of many named values, in ascending order; None without any value."""
    if not values:
        return None
    order = sorted(values, key=lambda each: (values[each], each))
    short = dict(zip(order, without_shared_beginning(order), strict=True))
    lanes = tuple(
        Lane(
            short[each],
            (Mark(min(0.0, value), max(0.0, value), kind="bar"),),
        )
        for each in order[:NOISIEST]
        for value in (values[each],)
    )
    left = len(order) - len(lanes)
    notes = (f"Left out: {left} with a higher value, up to {values[order[-1]]:.1f}.",) if left else ()
    return RangeChart(name, group, title=words, x=Axis(axis), lanes=lanes, notes=notes)


def ranges_chart(chosen: ShownRun) -> RangeChart | None:
    """Return the quantized range of each activation over its range in calibration, in the order of layers."""
    stage, ranges = _last_ranges(chosen.run, ("low", "high", "seen_low", "seen_high"))
    if not ranges:
        return None
    order = sorted(ranges, key=natural)
    widest = sorted(order, key=lambda name: ranges[name]["seen_low"] - ranges[name]["seen_high"])
    kept = set(widest[:MOST_RANGES])
    shown = [name for name in order if name in kept]
    lanes = tuple(map(_range_lane, without_shared_beginning(shown), map(ranges.__getitem__, shown)))
    left = len(order) - len(shown)
    notes = (f"Left out: {left} activations of which calibration saw a narrower range.",) if left else ()
    ends = [end for lane in lanes for mark in lane.marks for end in (mark.low, mark.high)]
    words = f"{chosen.group}: ranges of activations, {stage}"
    axis = Axis("value of the activation", scale_of(ends))
    return RangeChart(
        f"{chosen.group}-ranges",
        chosen.group,
        title=words,
        x=axis,
        lanes=lanes,
        legend=(("seen", "seen in calibration"), ("bar", "quantized")),
        notes=notes,
    )


def layers_chart(chosen: ShownRun) -> HeatMap | None:
    """Return the noise of activations by layer and site within it; None unless names have layers."""
    stage, ranges = _last_ranges(chosen.run, ("sqnr",))
    places = {name: match for name in ranges if (match := re.search(r"(?:^|\.)(\d+)\.(.+)$", name))}
    if not places:
        return None
    order = sorted(places, key=natural)
    tiles = (Tile(places[name][1], places[name][2], ranges[name]["sqnr"] or 0.0) for name in order)
    without = len(ranges) - len(places)
    return HeatMap(
        f"{chosen.group}-layers",
        chosen.group,
        title=f"{chosen.group}: signal to quantization noise by layer, {stage}",
        columns="layer",
        rows="activation",
        value="SQNR (dB), more is better",
        tiles=tuple(tiles),
        is_loss=False,
        notes=(f"Left out: {without} activations outside the layers.",) if without else (),
    )


def gate_chart(chosen: ShownRun) -> RangeChart | None:
    """Return the quantiles of the differences between the logits of engines and torch, against their floor.

    The floor is the difference between two arithmetics of torch. None if no gate has both.
    """
    lanes = [
        Lane(f"{name} {quantile}", tuple(_gate_marks(found, floor.get(quantile))))
        for name, engine in chosen.run.record.engines.items()
        for floor in [engine.get("gate", {}).get("floor", {}).get("logit_differences", {})]
        for quantile, found in engine.get("gate", {}).get("logit_differences", {}).items()
        if found is not None
    ]
    if not lanes:
        return None
    is_clipped = any(mark.low == SMALLEST for lane in lanes for mark in lane.marks)
    return RangeChart(
        f"{chosen.group}-gate",
        chosen.group,
        title=f"{chosen.group}: differences of logits to torch",
        x=Axis(
            "absolute difference of logits", scale_of([mark.low for lane in lanes for mark in lane.marks])
        ),
        lanes=tuple(lanes),
        legend=(("median", "floor: torch in another arithmetic"), ("dot", "engine")),
        notes=(f"Smaller ones are shown at {SMALLEST:g}.",) if is_clipped else (),
    )


def _gate_marks(found: float, floor: float | None) -> Iterator[Mark]:
    if floor is not None:
        yield Mark(max(floor, SMALLEST), max(floor, SMALLEST), "median")
    yield Mark(max(found, SMALLEST), max(found, SMALLEST), "dot")


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key of names that places layer 10 after layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def without_shared_beginning(names: Sequence[str]) -> list[str]:
    """Strip the leading parts that all dotted names share; at least one part of each stays."""
    parts = [name.split(".") for name in names]
    shared = 0
    while len({tuple(each[: shared + 1]) for each in parts}) == 1 and all(
        len(each) > shared + 1 for each in parts
    ):
        shared += 1
    return [".".join(each[shared:]) for each in parts]


def _best_of(comparison: Comparison) -> Iterator[ShownRun]:
    """Yield the best run of each row that has curves or ranges, the best first."""
    names, task = names_of(comparison), title(comparison)
    ranked: list[tuple[tuple[bool, float], ShownRun]] = []
    for row in comparison.rows:
        runs = [run for run in row.runs if run.record.curves or run.record.ranges]
        scored = [(_result(run, row, comparison), run) for run in runs]
        if scored:
            score, run = max(scored, key=lambda each: each[0])
            failed = "" if run.record.status == "ok" else f", {outcome(run.record)}"
            rank = not run.record.ranges, -score  # quantized runs also show the float training
            ranked.append((rank, ShownRun(run, f"{task} {names[id(row)]} seed {run.seed}{failed}")))
    yield from (each for _, each in sorted(ranked, key=lambda pair: pair[0]))


def _result(run: RunView, row: Row, comparison: Comparison) -> float:
    """Return the primary score of the last stage; negative infinity if there is none or the run failed."""
    metric = comparison.metrics[0] if comparison.metrics else ""
    value = run.measured.get(Quantity("score", last_stage(row), metric))
    return float("-inf") if value is None or run.record.status == "failed" else value


def _count(comparison: Comparison) -> int:
    runs = (run for row in comparison.rows for run in row.runs)
    return sum(bool(run.record.curves or run.record.ranges) for run in runs)


def _last_ranges(run: RunView, fields: Collection[str]) -> tuple[str, Mapping[str, ActivationRange]]:
    """Return the last stage that has ranges with all fields, and these ranges; older Records lack some."""
    for stage in ("qat", "ptq"):
        ranges = {
            name: each
            for name, each in run.record.ranges.get(stage, {}).items()
            if all(each.get(field) is not None for field in fields)
        }
        if ranges:
            return stage, ranges
    return "", {}


def _range_lane(short: str, each: ActivationRange) -> Lane:
    seen = Mark(each["seen_low"], each["seen_high"], kind="seen")
    return Lane(short, (seen, Mark(each["low"], each["high"], kind="bar")))
