"""Charts of the rows of one comparison: loss against size and latency, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import median

from qexp.reporting.charts.spec import (
    MUTED,
    Axis,
    Dot,
    Lane,
    Mark,
    MarkKind,
    RangeChart,
    Series,
    XYChart,
    scale_of,
)
from qexp.reporting.comparison import Comparison, Row, order_of
from qexp.reporting.pareto import front
from qexp.reporting.run_view import Quantity
from qexp.reporting.settings import ABSENT
from qexp.reporting.table import MEBIBYTE
from qexp.reporting.tables.comparison import STAGES, model_names, title

MOST_LANES = 32
"""Maximum number of rows in a chart of seeds."""
MOST_GRAPHS = 300
"""Maximum number of dots in a chart."""
SHAPES = 4
"""Number of models that the shapes of dots can distinguish."""


@dataclass(frozen=True)
class GraphPoint:
    """Cost of an exported graph, and the score of its model in torch."""

    row: Row
    name: str
    cost: float
    score: float
    quant: str
    simulated: bool
    broken: bool = False
    """Whether the graph does not reproduce the score."""


def colours_of(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Return a colour for each bit-width, the same in all charts."""
    bits = {row.quant: row.bits for comparison in comparisons for row in comparison.rows}
    order = sorted({"fp32": (32, 32), **bits}.items(), key=lambda item: order_of("", item[1]))
    return {quant: index for index, (quant, _) in enumerate(order)}


def names_of(comparison: Comparison) -> dict[int, str]:
    """Return a name for each row by its ``id``: model, bit-widths and the settings that have a column."""
    names = model_names(row.model for row in comparison.rows)
    return {
        id(row): " ".join(
            [names[row.model], row.quant, *(word for word in comparison.columns_of(row) if word != ABSENT)]
        )
        for row in comparison.rows
    }


def size_chart(comparison: Comparison, colours: Mapping[str, int]) -> XYChart | None:
    """Return loss against the size of the ONNX file; None without two files."""
    axis = "size of the ONNX file (MiB)"
    graphs = _graphs(comparison, Quantity("size", "fp32"), Quantity("size", "int8"), MEBIBYTE)
    return _against(comparison, graphs, colours=colours, name="size", axis=axis, unit="MiB")


def latency_chart(comparison: Comparison, colours: Mapping[str, int]) -> XYChart | None:
    """Return loss against the median latency of the smallest batch; None without two measured graphs.

    Simulated graphs are shown but excluded from the Pareto front, because an integer kernel would have
    another latency. Files that do not reproduce the score are on neither front.
    """
    batches = {name.batch for row in comparison.rows for name in row.cells if name.name == "latency"}
    batch = min(batches, key=lambda text: (len(text), text), default="1")
    fp32, int8 = (Quantity("latency", graph, "p50_ms", batch) for graph in ("fp32", "int8"))
    graphs = _graphs(comparison, fp32, int8, 1)
    axis = f"latency of batch {batch} (ms, p50)"
    return _against(comparison, graphs, colours=colours, name="latency", axis=axis, unit="ms")


def _graphs(comparison: Comparison, fp32: Quantity, int8: Quantity, unit: float) -> list[GraphPoint]:
    metric, names = (comparison.metrics or ("",))[0], names_of(comparison)
    graphs = _float_graphs(comparison, metric, fp32, unit)
    for row in comparison.rows:
        score, cost = _median(row, Quantity("score", last_stage(row), metric)), _median(row, int8)
        if row.quant != "fp32" and score is not None and cost is not None:
            graphs.append(
                GraphPoint(
                    row,
                    names[id(row)],
                    cost=cost / unit,
                    score=score,
                    quant=row.quant,
                    simulated=row.simulated,
                    broken=bool(row.broken_parity),
                )
            )
    return graphs


def _float_graphs(comparison: Comparison, metric: str, cost_name: Quantity, unit: float) -> list[GraphPoint]:
    """Return the FP32 graphs of a model's FP32 rows, or else the graphs that its quantized rows start from.

    Rows that start from the same graph measured it several times, so their costs are reduced to a median.
    """
    models_with_fp32 = {row.model for row in comparison.rows if _is_fp32(row) and _median(row, cost_name)}
    names = model_names(row.model for row in comparison.rows)
    groups: dict[tuple[str, float], list[tuple[float, Row]]] = {}
    for row in comparison.rows:
        stage = last_stage(row) if row.quant == "fp32" else "fp32"
        score, cost = _median(row, Quantity("score", stage, metric)), _median(row, cost_name)
        if (
            score is not None
            and cost is not None
            and (row.quant == "fp32" or row.model not in models_with_fp32)
        ):
            groups.setdefault((row.model, score), []).append((cost / unit, row))
    return [
        GraphPoint(
            rows[0][1],
            _float_name(names[model], rows),
            cost=median(cost for cost, _ in rows),
            score=score,
            quant="fp32",
            simulated=False,
        )
        for (model, score), rows in groups.items()
    ]


def _is_fp32(row: Row) -> bool:
    """Return whether the row's graph is the FP32 model, not a control that was trained further."""
    return row.quant == "fp32" and last_stage(row) == "fp32"


def _float_name(model: str, rows: Sequence[tuple[float, Row]]) -> str:
    return f"{model} fp32{' control' if all(last_stage(row) == 'control' for _, row in rows) else ''}"


def _median(row: Row, quantity: Quantity) -> float | None:
    return row.cells[quantity].median if quantity in row.cells else None


def last_stage(row: Row) -> str:
    """Return the stage whose score is the row's result."""
    stages = [stage for run in row.runs for stage in run.stages if stage in STAGES]
    return max(stages, key=list(STAGES).index, default="fp32")


def _against(
    comparison: Comparison,
    graphs: Sequence[GraphPoint],
    colours: Mapping[str, int],
    *,
    name: str,
    axis: str,
    unit: str,
) -> XYChart | None:
    if len(graphs) < 2:
        return None
    rivals = [graph for graph in graphs if not graph.broken and not (graph.simulated and name == "latency")]
    best = [rivals[index] for index in front([(graph.cost, graph.score) for graph in rivals])]
    first = [*best, *sorted(graphs, key=lambda graph: -graph.score)]
    kept = list({id(graph): graph for graph in first}.values())[:MOST_GRAPHS]
    task, metric, best_score = title(comparison), comparison.metrics[0], _best_fp32(comparison, graphs)
    notes = ["Hollow: simulated, no integer kernel computes with other than 8 bits."] * any(
        graph.simulated for graph in kept
    )
    if left := len(graphs) - len(kept):
        notes.append(f"Left out: {left} graphs of a lower score; they are in the table.")
    front_dots = tuple(Dot(graph.cost, best_score - graph.score) for graph in best)
    line = Series("Pareto front", front_dots, MUTED, "front")
    return XYChart(
        f"{task}-{name}",
        task,
        title=f"{task}: loss against {name}",
        x=Axis(axis, scale_of([graph.cost for graph in kept])),
        y=Axis(f"loss of {metric} against the best FP32 (points)"),
        series=(line, *_series(kept, {id(graph) for graph in best}, colours, (unit, best_score))),
        notes=tuple(notes),
    )


def _best_fp32(comparison: Comparison, graphs: Sequence[GraphPoint]) -> float:
    """Return the highest FP32 score, from which all losses of a chart are counted, so that models compare."""
    quantity = Quantity("score", "fp32", comparison.metrics[0])
    scores = [score for row in comparison.rows if (score := _median(row, quantity)) is not None]
    return max(scores, default=max(graph.score for graph in graphs))


def _series(
    graphs: Sequence[GraphPoint], best: Set[int], colours: Mapping[str, int], scale: tuple[str, float]
) -> Iterator[Series]:
    """Yield a series for each model and bit-width, or for bit-widths alone.

    Models have series of their own if there are several, but no more than shapes can distinguish. ``scale``
    is the unit of costs, and the score without a loss.
    """
    models = sorted({graph.row.model for graph in graphs})
    apart = 1 < len(models) <= SHAPES
    names = model_names(models)
    groups: dict[tuple[int, int, str], list[GraphPoint]] = {}
    for graph in graphs:
        shape = models.index(graph.row.model) if apart else 0
        groups.setdefault((shape, colours[graph.quant], graph.quant), []).append(graph)
    for (shape, colour, quant), of_group in sorted(groups.items(), key=lambda item: item[0]):
        words = f"{names[models[shape]]} {quant}" if apart else quant
        words += ", simulated" if of_group[0].simulated else ""
        prefix = f"{names[models[0]]} " if len(models) == 1 else ""
        dots = tuple(_dot(graph, id(graph) in best, scale, prefix) for graph in of_group)
        yield Series(
            words, dots, colour=colour, form="hollow" if of_group[0].simulated else "dots", shape=shape
        )


def _dot(graph: GraphPoint, best: bool, scale: tuple[str, float], prefix: str) -> Dot:
    """Return the dot of a graph; its label leaves out ``prefix``, which all names share."""
    unit, best_score = scale
    loss = best_score - graph.score
    words = f"{graph.name}: loses {loss:.2f} points ({graph.score:.2f} %) at {graph.cost:.4g} {unit}"
    words += ", simulated" if graph.simulated else ""
    words += ", the file does not reproduce it (gate failed)" if graph.broken else ""
    words += ", on the Pareto front" if best else ""
    return Dot(graph.cost, loss, words, graph.name.removeprefix(prefix) if best else "")


def seed_chart(comparison: Comparison) -> RangeChart | None:
    """Return each seed's result by row, with the median; None unless a row has two seeds."""
    if not comparison.metrics:
        return None
    lanes = list(_seed_lanes(comparison))
    if not any(len(lane.marks) > 2 for _, lane in lanes):
        return None
    kept = sorted(sorted(range(len(lanes)), key=lambda index: -lanes[index][0])[:MOST_LANES])
    left = len(lanes) - len(kept)
    notes = [f"Left out: {left} rows of a lower median; they are in the table."] if left else []
    task, metric = title(comparison), comparison.metrics[0]
    return RangeChart(
        f"{task}-seeds",
        task,
        title=f"{task}: {metric} of each seed",
        x=Axis(f"{metric} (%)"),
        lanes=tuple(lanes[index][1] for index in kept),
        legend=(("median", "median"), ("dot", "one seed"), ("ring", "one seed, simulated")),
        notes=tuple(notes),
    )


def _seed_lanes(comparison: Comparison) -> Iterator[tuple[float, Lane]]:
    names = names_of(comparison)
    for row in comparison.rows:
        cell = row.cells.get(Quantity("score", last_stage(row), comparison.metrics[0]))
        if cell is None or cell.median is None:
            continue
        name = f"{names[id(row)]}{', simulated' if row.simulated else ''}"
        kind: MarkKind = "ring" if row.simulated else "dot"
        marks = [
            Mark(value, value, kind=kind, words=f"{name}: seed {seed}, {value:.2f} %")
            for seed, value in cell.values.items()
            if value is not None
        ]
        middle = Mark(cell.median, cell.median, "median", f"{name}: median {cell.median:.2f} %")
        yield cell.median, Lane(name, (middle, *marks))
