"""Charts over the rows of one comparison: score against size and latency, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from qexp.reporting.charts import MUTED, Axis, Dot, Lane, Lanes, Mark, Plane, Series
from qexp.reporting.comparison import Comparison, Row, order_of
from qexp.reporting.facts import Quantity
from qexp.reporting.layout import STAGES, model_names, title
from qexp.reporting.pareto import front
from qexp.reporting.scales import scale_of
from qexp.reporting.settings import ABSENT
from qexp.reporting.table import MEBIBYTE

MOST_LANES = 32
"""Rows of one chart of seeds."""
SIZE = Quantity("size", "int8")


@dataclass(frozen=True)
class Graph:
    """An exported graph: what it costs and how well it scores."""

    row: Row
    name: str
    cost: float
    score: float
    quant: str
    simulated: bool


def colours_of(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """One colour for each bit-width, the same in all charts."""
    bits = {row.quant: row.bits for comparison in comparisons for row in comparison.rows}
    order = sorted({"fp32": (32, 32), **bits}.items(), key=lambda item: order_of("", item[1]))
    return {quant: index for index, (quant, _) in enumerate(order)}


def names_of(comparison: Comparison) -> dict[int, str]:
    """Words for each row, by its place: model, bit-widths and the settings that have a column."""
    names = model_names(row.model for row in comparison.rows)
    return {
        id(row): " ".join(
            [names[row.model], row.quant, *(word for word in comparison.columns_of(row) if word != ABSENT)]
        )
        for row in comparison.rows
    }


def size_chart(comparison: Comparison, colours: Mapping[str, int]) -> Plane | None:
    """Score against the size of the ONNX file; none without two files."""
    axis = "size of the ONNX file (MiB)"
    graphs = _graphs(comparison, Quantity("size", "fp32"), SIZE, MEBIBYTE)
    return _against(comparison, graphs, colours, "size", axis, "MiB")


def latency_chart(comparison: Comparison, colours: Mapping[str, int]) -> Plane | None:
    """Score against the median latency of the smallest batch; none without two graphs measured.

    Simulated graphs are shown, but compete for no place on the front: what they take is not what an
    integer kernel would take.
    """
    known = {name.batch for row in comparison.rows for name in row.cells if name.name == "latency"}
    batch = min(known, key=lambda text: (len(text), text), default="1")
    both = (Quantity("latency", graph, "p50_ms", batch) for graph in ("fp32", "int8"))
    graphs = _graphs(comparison, *both, 1)
    axis = f"latency of batch {batch} (ms, p50)"
    return _against(comparison, graphs, colours, "latency", axis, "ms")


def _graphs(comparison: Comparison, fp32: Quantity, int8: Quantity, unit: float) -> list[Graph]:
    metric, names = (comparison.metrics or ("",))[0], names_of(comparison)
    found: list[Graph] = []
    floats: dict[tuple[str, float], list[tuple[float, Row]]] = {}
    for row in comparison.rows:
        score, cost = _median(row, Quantity("score", "fp32", metric)), _median(row, fp32)
        if score is not None and cost is not None:
            floats.setdefault((row.model, score), []).append((cost / unit, row))
        score, cost = _exported(row, metric), _median(row, int8)
        if row.quant != "fp32" and score is not None and cost is not None:
            found.append(Graph(row, names[id(row)], cost / unit, score, row.quant, row.simulated))
    shown = model_names(row.model for row in comparison.rows)
    for (model, score), costs in floats.items():
        words = f"{shown[model]} fp32"
        found.append(Graph(costs[0][1], words, median(cost for cost, _ in costs), score, "fp32", False))
    return found


def _exported(row: Row, metric: str) -> float | None:
    """Median score of what was exported: as the graph scored, else the last stage in torch."""
    scores = (_median(row, Quantity("score", stage, metric)) for stage in ("onnx", last_stage(row)))
    return next((score for score in scores if score is not None), None)


def _median(row: Row, quantity: Quantity) -> float | None:
    return row.cells[quantity].median if quantity in row.cells else None


def last_stage(row: Row) -> str:
    """Stage whose score is the row's result."""
    runs = [run for each in row.by_seed.values() for run in (each.best, *each.failed) if run]
    stages = [stage for run in runs for stage in run.stages if stage in STAGES]
    return max(stages, key=list(STAGES).index, default="fp32")


def _against(
    comparison: Comparison,
    graphs: Sequence[Graph],
    colours: Mapping[str, int],
    name: str,
    axis: str,
    unit: str,
) -> Plane | None:
    if len(graphs) < 2:
        return None
    rivals = [graph for graph in graphs if not (graph.simulated and name == "latency")]
    best = [rivals[index] for index in front([(graph.cost, graph.score) for graph in rivals])]
    models = list(dict.fromkeys(graph.row.model for graph in graphs))
    line = tuple(Dot(graph.cost, graph.score) for graph in best)
    series = [Series("Pareto front", line, MUTED, "front")]
    for key in sorted({_series_key(graph) for graph in graphs}, key=lambda key: (key[0], colours[key[1]])):
        dots = [_dot(graph, graph in best, unit, models) for graph in graphs if _series_key(graph) == key]
        series.append(_series(key, dots, colours, models, comparison))
    notes = ["Hollow: simulated, no integer kernel computes with fewer than 8 bits."] * any(
        graph.simulated for graph in graphs
    )
    metric, scale = comparison.metrics[0], scale_of([graph.cost for graph in graphs])
    task = title(comparison)
    return Plane(
        f"{task}-{name}",
        task,
        f"{task}: {metric} against {name}",
        Axis(axis, scale),
        Axis(f"{metric} (%)"),
        tuple(series),
        tuple(notes),
    )


def _series_key(graph: Graph) -> tuple[str, str, bool]:
    return graph.row.model, graph.quant, graph.simulated


def _series(
    key: tuple[str, str, bool],
    dots: Sequence[Dot],
    colours: Mapping[str, int],
    models: Sequence[str],
    comparison: Comparison,
) -> Series:
    model, quant, simulated = key
    names = model_names(row.model for row in comparison.rows)
    words = f"{names[model]} {quant}" if len(models) > 1 else quant
    words += ", simulated" if simulated else ""
    form = "hollow" if simulated else "dots"
    return Series(words, tuple(dots), colours[quant], form, models.index(model))  # type: ignore[arg-type]


def _dot(graph: Graph, best: bool, unit: str, models: Sequence[str]) -> Dot:
    words = f"{graph.name}: {graph.score:.2f} % at {graph.cost:.4g} {unit}"
    words += ", simulated" if graph.simulated else ""
    words += ", on the Pareto front" if best else ""
    label = graph.name if len(models) > 1 else graph.name.split(" ", 1)[1]
    return Dot(graph.cost, graph.score, words, label if best else "")


def seed_chart(comparison: Comparison, colours: Mapping[str, int]) -> Lanes | None:
    """Each seed's result by row, with their median; none unless a row has two seeds."""
    if not comparison.metrics:
        return None
    lanes = list(_seed_lanes(comparison, colours))
    if not any(len(lane.marks) > 2 for _, lane in lanes):
        return None
    kept = sorted(sorted(range(len(lanes)), key=lambda index: -lanes[index][0])[:MOST_LANES])
    left = len(lanes) - len(kept)
    notes = [f"Left out: {left} rows of a lower median; they are in the table."] if left else []
    task, metric = title(comparison), comparison.metrics[0]
    return Lanes(
        f"{task}-seeds",
        task,
        f"{task}: {metric} of each seed",
        Axis(f"{metric} (%)"),
        tuple(lanes[index][1] for index in kept),
        (("one seed", Mark(0, 0, "dot", colour=0)), ("median", Mark(0, 0, "median", colour=MUTED))),
        tuple(notes),
    )


def _seed_lanes(comparison: Comparison, colours: Mapping[str, int]) -> Iterator[tuple[float, Lane]]:
    names = names_of(comparison)
    for row in comparison.rows:
        cell = row.cells.get(Quantity("score", last_stage(row), comparison.metrics[0]))
        if cell is None or cell.median is None:
            continue
        name = f"{names[id(row)]}{', simulated' if row.simulated else ''}"
        marks = [
            Mark(value, value, "dot", f"{name}: seed {seed}, {value:.2f} %", colours[row.quant])
            for seed, value in cell.values.items()
            if value is not None
        ]
        middle = Mark(cell.median, cell.median, "median", f"{name}: median {cell.median:.2f} %", MUTED)
        yield cell.median, Lane(name, (middle, *marks))
