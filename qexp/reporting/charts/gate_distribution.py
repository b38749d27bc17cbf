"""Chart of how the differences between logits are distributed over rows, of engines and of their floors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qexp.records.schema import BINS_OF_DECADE, DifferenceHistogram
from qexp.reporting.charts.run import ShownRun
from qexp.reporting.charts.spec import Axis, Dot, Series, XYChart


def distribution_chart(chosen: ShownRun) -> XYChart | None:
    """Return the share of rows by their difference to torch, of each engine and floor; None without any."""
    gates = {name: engine.get("gate", {}) for name, engine in chosen.run.record.engines.items()}
    known = {name: gate for name, gate in gates.items() if "distribution" in gate}
    if not known:
        return None
    return XYChart(
        f"{chosen.group}-distribution",
        chosen.group,
        title=f"{chosen.group}: distribution of the differences of logits to torch",
        x=Axis("largest absolute difference of a row's logits", "log"),
        y=Axis("rows (%)"),
        series=tuple(_series(known)),
        notes=tuple(_notes(known)),
    )


def shares_of(histogram: DifferenceHistogram) -> Iterator[tuple[float, float]]:
    """Yield the lower end of each bin and its share of the rows in percent, with empty bins at both ends."""
    first, counts = histogram["first"], histogram["counts"]
    rows = (sum(counts) + histogram["below"]) or 1
    for place, count in enumerate([0, *counts, 0], first - 1):
        yield 10 ** (place / BINS_OF_DECADE), 100 * count / rows


def _series(gates: Mapping[str, Any]) -> Iterator[Series]:
    """Yield a staircase for each engine, and a dashed one for the floor of each precision."""
    drawn: set[str] = set()
    for colour, (name, gate) in enumerate(gates.items()):
        yield Series(name, _dots(name, gate["distribution"]), colour, "steps")
        floor, of_floor = gate.get("floor", {}).get("distribution"), f"floor of {name.rpartition('/')[2]}"
        if floor and of_floor not in drawn:
            drawn.add(of_floor)
            yield Series(of_floor, _dots(of_floor, floor), colour, "dashed")


def _dots(name: str, histogram: DifferenceHistogram) -> tuple[Dot, ...]:
    return tuple(Dot(x, share, f"{name}: {share:.1f} % of the rows") for x, share in shares_of(histogram))


def _notes(gates: Mapping[str, Any]) -> Iterator[str]:
    yield "A step is a quarter of a power of ten wide."
    for name, gate in gates.items():
        if below := gate["distribution"]["below"]:
            yield f"{name}: {below} rows differ by less than 1e-9, or not at all, and are not drawn."
