"""Galleries of all charts in the order of display, with the command that fills an empty one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from qexp.reporting.charts.comparison import colours_of, latency_chart, seed_chart, size_chart
from qexp.reporting.charts.gate_distribution import distribution_chart
from qexp.reporting.charts.loss_map import loss_map
from qexp.reporting.charts.outliers import outliers_chart
from qexp.reporting.charts.run import (
    ShownRun,
    chosen_runs,
    curves_chart,
    gate_chart,
    layers_chart,
    noise_chart,
    ranges_chart,
)
from qexp.reporting.charts.sensitivity import Sensitivity, chart_of
from qexp.reporting.charts.spec import Chart, Gallery
from qexp.reporting.comparison import Comparison
from qexp.reporting.table import KEY_LENGTH
from qexp.reporting.tables.comparison import title

MOST_TASKS = 12
"""Maximum number of charts side by side; of more, a reader selects one at a time."""
SCORES = "Scores are those in torch, as in the verdict; the tables have those of the exported files, too."
"""Which scores the losses of charts are of."""

Measured = Mapping[str, Sensitivity]
"""Measured sensitivity, by the key of the run."""


def galleries(comparisons: Sequence[Comparison], measured: Measured | None = None) -> list[Gallery]:
    """Return every gallery, even empty ones; ``measured`` replaces the expected noise of the same runs."""
    return [*_of_tasks(comparisons), *_of_runs(comparisons, measured or {})]


def _of_tasks(comparisons: Sequence[Comparison]) -> list[Gallery]:
    colours, key = colours_of(comparisons), _example(comparisons)

    def gallery(name: str, lead: str, draw: Callable[..., Chart | None], empty: str, command: str) -> Gallery:
        drawn = {title(each): draw(each) for each in comparisons}
        charts = tuple(chart for chart in drawn.values() if chart)
        without = [task for task, chart in drawn.items() if chart is None]
        notes = (f"Without a chart: {', '.join(without)}. {empty}",) if charts and without else ()
        return Gallery(
            name,
            lead,
            charts=charts,
            empty=empty,
            command=command,
            one_by_one=len(charts) > MOST_TASKS,
            notes=notes,
        )

    return [
        gallery(
            "Loss against latency",
            f"{SCORES} Medians over the seeds; left and down is better. Simulated graphs are shown, but on "
            "no front.",
            draw=partial(latency_chart, colours=colours),
            empty="Fewer than two graphs with a latency and a score.",
            command=_command(key, "quant=w8a8,w4a8 deploy=onnxruntime", sweep=True),
        ),
        gallery(
            "Loss against size",
            f"{SCORES} Medians over the seeds of the exported files; left and down is better, and nothing is "
            "better than the Pareto front.",
            draw=partial(size_chart, colours=colours),
            empty="Fewer than two exported files with a score.",
            command=_command(key, "quant=w8a8,w4a8 deploy=onnx", sweep=True),
        ),
        Gallery(
            "Loss by task and width",
            f"{SCORES} The smallest loss of the main score among all rows of a task and bit-widths, against "
            "FP32 of the same runs.",
            charts=(losses,) if (losses := loss_map(comparisons)) else (),
            empty="No quantized model has a score beside that of FP32.",
            command=_command(key, "quant=w8a8,w4a8", sweep=True),
        ),
        gallery(
            "Seed spread",
            "A dot for each seed, a line for their median.",
            draw=seed_chart,
            empty="No row has a score of two seeds.",
            command=_command(key, "quant=w8a8 seed=1,2,3", sweep=True),
        ),
    ]


def _of_runs(comparisons: Sequence[Comparison], measured: Measured) -> list[Gallery]:
    runs, left = chosen_runs(comparisons)
    gallery, key = partial(_run_gallery, runs, left), _example(comparisons)
    return [
        *_of_training_and_noise(gallery, key, measured),
        *_of_ranges(gallery, key),
        *_of_gates(gallery, key),
    ]


def _of_training_and_noise(
    gallery: Callable[..., Gallery], key: str | None, measured: Measured
) -> Iterator[Gallery]:
    yield gallery(
        "Training curves",
        "Mean loss between two points, of the FP32 fine-tune and of quantization-aware training; "
        "distillation makes it another loss.",
        draw=curves_chart,
        empty="No Record has a loss curve: nothing was trained, or by an older version of qexp.",
        command=_command(key, "quant=w8a8 method=qat"),
    )
    yield gallery(
        "Sensitivity",
        "Signal to quantization noise: of the logits with only these sites quantized, where it was "
        "measured; else of each activation, as its histogram of calibration lets expect. The noisiest "
        "first.",
        draw=partial(_noise_chart, measured),
        empty="No Record has the noise of its activations: nothing was quantized, or by an older version.",
        command=_command(key, "quant=w8a8"),
    )
    yield gallery(
        "Sensitivity by layer",
        "Expected signal to quantization noise of each activation in each layer; low numbers are noisy.",
        draw=layers_chart,
        empty="No Record has the noise of activations in numbered layers.",
        command=_command(key, "quant=w8a8"),
    )


def _of_ranges(gallery: Callable[..., Gallery], key: str | None) -> Iterator[Gallery]:
    yield gallery(
        "Activation ranges",
        "What is quantized, over what calibration saw; what lies outside is clipped.",
        draw=ranges_chart,
        empty="No Record has ranges of activations: nothing was quantized, or by an older version of qexp.",
        command=_command(key, "quant=w8a8"),
    )
    yield gallery(
        "Outlier dimensions",
        "Dimensions with a value more than 6 standard deviations from the mean of their activation "
        "(Bondarenko et al. 2021), over the range of all other dimensions: one scale that reaches them "
        "leaves the others few levels. qexp inspect RUN --dimensions FILE draws every dimension.",
        draw=outliers_chart,
        empty="No Record has outlier dimensions: no activation has any, or the statistics are from an "
        "older version of qexp.",
        command=_command(key, "quant=w8a8"),
    )


def _of_gates(gallery: Callable[..., Gallery], key: str | None) -> Iterator[Gallery]:
    yield gallery(
        "Gate",
        "Quantiles of the differences between the logits of an engine and of torch, beside the floor: "
        "the differences that torch has to itself in another arithmetic.",
        draw=gate_chart,
        empty="No Record has differences of logits: nothing was exported, or by an older version of qexp.",
        command=_command(key, "quant=w8a8 deploy=onnxruntime"),
    )
    yield gallery(
        "Gate distribution",
        "How many rows differ by how much between an engine and torch, and dashed the floor: an engine "
        "that computes the model has the floor's distribution, or lies left of it.",
        draw=distribution_chart,
        empty="No Record has the distribution of these differences: nothing was exported, or the gate "
        "is from an older version of qexp.",
        command=_command(key, "quant=w8a8 deploy=onnxruntime"),
    )


def _run_gallery(
    runs: Sequence[ShownRun],
    left: int,
    name: str,
    lead: str,
    *,
    draw: Callable[[ShownRun], Chart | None],
    empty: str,
    command: str,
) -> Gallery:
    """Return the gallery of one kind of chart; ``left`` runs are not among those that are shown."""
    charts = tuple(chart for chosen in runs if (chart := draw(chosen)))
    note = f"Left out: {left} other runs; shown is the best run of the best rows of each task."
    notes = (note,) if charts and left else ()
    return Gallery(name, lead, charts=charts, empty=empty, command=command, one_by_one=True, notes=notes)


def _noise_chart(measured: Measured, chosen: ShownRun) -> Chart | None:
    """Return the chart of a run's measured sensitivity, or else of its expected noise."""
    sensitivity = measured.get(chosen.run.record.key)
    return (sensitivity and chart_of(sensitivity, f"{chosen.group}-noise", chosen.group)) or noise_chart(
        chosen
    )


def _command(key: str | None, words: str, *, sweep: bool = False) -> str:
    """Return the command that fills a gallery: a run that is there again, with changes."""
    many = "-m " if sweep else ""
    return f"qexp again {key} {many}{words}" if key else f"python -m qexp {many}task=mrpc {words}"


def _example(comparisons: Sequence[Comparison]) -> str | None:
    """Return the beginning of a run's key for the commands: of one that finished and can be exported, if any.

    A task can have a name that is no option of its group, such as that of a file of rows.
    """
    runs = [run for comparison in comparisons for row in comparison.rows for run in row.runs]
    order = sorted(runs, key=lambda run: (run.find("task.kind") == "translation", run.record.status != "ok"))
    return order[0].record.key[:KEY_LENGTH] if order else None
