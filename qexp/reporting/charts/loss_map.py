"""Heat map of what quantization costs, by task and bit-widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qexp.reporting.charts.comparison import colours_of, last_stage, names_of
from qexp.reporting.charts.spec import HeatMap, Tile
from qexp.reporting.comparison import Comparison, Row
from qexp.reporting.run_view import Quantity
from qexp.reporting.tables.comparison import model_names, title

LOSS = "loss of the main score (points)"


def loss_map(comparisons: Sequence[Comparison]) -> HeatMap | None:
    """Return the smallest loss of each task and model at each bit-width; None without a quantized row.

    A loss is FP32 minus quantized, of the medians over the seeds of one row.
    """
    best: dict[tuple[str, str], Tile] = {}
    for comparison in comparisons:
        for tile in _tiles_of(comparison):
            known = best.get((tile.row, tile.column))
            if known is None or tile.value < known.value:
                best[tile.row, tile.column] = tile
    if not best:
        return None
    widths, names = colours_of(comparisons), list(dict.fromkeys(row for row, _ in best))
    order = sorted(best, key=lambda place: (widths[place[1]], names.index(place[0])))
    return HeatMap(
        "loss-by-task-and-width",
        "all tasks",
        title="Smallest loss by task and bit-widths",
        columns="bit-widths",
        rows="task",
        value=LOSS,
        tiles=tuple(best[place] for place in order),
        is_loss=True,
    )


def _tiles_of(comparison: Comparison) -> Iterator[Tile]:
    names, models = names_of(comparison), model_names(row.model for row in comparison.rows)
    for row in comparison.rows:
        if row.quant == "fp32" or not comparison.metrics:
            continue
        metric = comparison.metrics[0]
        fp32, quantized = (_score(row, stage, metric) for stage in ("fp32", last_stage(row)))
        if fp32 is not None and quantized is not None:
            loss = fp32 - quantized
            words = f"{names[id(row)]}: {metric} {fp32:.2f} -> {quantized:.2f} %, loses {loss:.2f} points"
            name = f"{title(comparison)}{f', {models[row.model]}' if len(models) > 1 else ''}"
            yield Tile(row.quant, name, loss, words + (", simulated" if row.simulated else ""))


def _score(row: Row, stage: str, metric: str) -> float | None:
    cell = row.cells.get(Quantity("score", stage, metric))
    return cell.median if cell else None
