"""Quantize one group of sites at a time and measure the loss: ``qexp sensitivity RUN``.

Exit codes: 0, measured; 2, not measured, with the reason and the next step on stderr; 130, interrupted, with
the results so far.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.analysis.find_run import RANGES, find_record
from qexp.cli.options import add_options, add_stage, ended
from qexp.console import print_out, shown_path
from qexp.errors import INTERRUPTED
from qexp.records.record import outputs_root, write_text

if TYPE_CHECKING:
    from qexp.analysis.sensitivity import SensitivityMeasurement
    from qexp.records.record import Record
    from qexp.reporting.charts.sensitivity import Sensitivity

BY = ("group", "layer", "kind")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure sensitivities, print and write them, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("sensitivity", lambda: _measure(options), "nothing was measured yet")


def _measure(options: argparse.Namespace) -> int:
    outputs: Path = options.outputs or outputs_root()
    measurement = _measurement(options, find_record(options.run, outputs), outputs)
    rows, code = measurement.bench.rows.count, 0
    try:
        with measurement.bench.ctx.console.bar(
            "sensitivity", total=measurement.evaluations * rows
        ) as advance:
            measurement.run(advance)
    except KeyboardInterrupt:
        print("interrupted: this is what was measured by then", file=sys.stderr)
        code = INTERRUPTED
    _show(measurement.found, outputs)
    return code


def _measurement(options: argparse.Namespace, record: Record, outputs: Path) -> SensitivityMeasurement:
    from qexp.analysis.evaluator import evaluator_of
    from qexp.analysis.find_run import subject_of
    from qexp.analysis.mixed_precision.groups import groups_of
    from qexp.analysis.sensitivity import SensitivityMeasurement, to_measure
    from qexp.quant.cost import work_of
    from qexp.reporting.charts.sensitivity import Sensitivity

    subject = subject_of(record, outputs, options.stage)
    bench = evaluator_of(
        record, outputs, stage=subject.stage, limit=options.rows, accelerator=options.accelerator
    )
    quantization, rows = bench.quantization, bench.rows
    groups = groups_of(quantization.sites, work_of(quantization), options.by)
    initial = Sensitivity(
        record.key,
        subject.title,
        stage=subject.stage,
        metric=rows.task.metrics[0],
        split=rows.split,
        rows=rows.count,
        by=options.by,
        groups=to_measure(groups),
    )
    return SensitivityMeasurement(bench, initial)


def _show(result: Sensitivity, outputs: Path) -> None:
    from qexp.cli.pictures import not_installed
    from qexp.reporting.charts.files import write_plots
    from qexp.reporting.charts.sensitivity import FOLDER, chart_of, csv_of, table_of
    from qexp.reporting.charts.spec import Gallery
    from qexp.reporting.table import markdown

    stem = FOLDER if result.by == "group" else f"{FOLDER}-{result.by}"
    folder = outputs / FOLDER / result.run
    text = markdown(table_of(result))
    for ending, content in (("json", result.to_json()), ("md", text), ("csv", csv_of(result))):
        write_text(folder / f"{stem}.{ending}", content)
    print_out(text)
    if problem := not_installed():
        print(f"no chart: {problem}", file=sys.stderr)
    elif chart := chart_of(result, stem, result.title):
        write_plots([Gallery(FOLDER, "", charts=(chart,), empty="", command="")], folder)
    print(f"files: {shown_path(folder / stem)}.*", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp sensitivity",
        description="Measures which sites of a quantized run hurt: each group of sites is quantized alone, "
        "and left alone in floating point, with the ranges that the run has. Nothing is calibrated or "
        "trained. A table is printed, and written with a chart to sensitivity/ of the outputs.",
        epilog="Exit code 0: measured; 2: it could not be, and stderr says why; 130: interrupted, and what "
        "was found by then is there.",
    )
    add_options(parser)
    parser.add_argument(
        "--by",
        choices=BY,
        default="group",
        help="what is switched at once: what a runtime computes together, such as queries, keys and values "
        "of an attention (group, the default), a layer of the model, or all sites of a kind",
    )
    add_stage(parser, RANGES)
    return parser
