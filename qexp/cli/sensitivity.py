"""Which sites of a quantized run hurt: ``python -m qexp sensitivity RUN``.

Exit codes: 0, it was measured; 2, it could not be, and stderr says why and what to do; 130, interrupted, with
what was found by then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.analysis.find_run import RANGES, find_record
from qexp.cli.options import add_options, add_stage, ended
from qexp.console import print_out
from qexp.errors import INTERRUPTED
from qexp.records.record import outputs_root, write_text

if TYPE_CHECKING:
    from qexp.analysis.sensitivity import Sweep
    from qexp.records.record import Record
    from qexp.reporting.charts.sensitivity import Sensitivity

BY = ("group", "layer", "kind")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    options = _parser().parse_args(arguments)
    return ended("sensitivity", lambda: _measure(options), "nothing was measured yet")


def _measure(options: argparse.Namespace) -> int:
    outputs: Path = options.outputs or outputs_root()
    sweep = _sweep(options, find_record(options.run, outputs), outputs)
    rows, code = sweep.bench.rows.count, 0
    try:
        with sweep.bench.rt.screen.bar("sensitivity", total=sweep.evaluations * rows) as move:
            sweep.run(move)
    except KeyboardInterrupt:
        print("interrupted: this is what was measured by then", file=sys.stderr)
        code = INTERRUPTED
    _show(sweep.found, outputs)
    return code


def _sweep(options: argparse.Namespace, record: Record, outputs: Path) -> Sweep:
    from qexp.analysis.evaluator import bench_of
    from qexp.analysis.find_run import subject_of
    from qexp.analysis.mixed_precision.groups import groups_of
    from qexp.analysis.sensitivity import Sweep, to_measure
    from qexp.quant.cost import work_of
    from qexp.reporting.charts.sensitivity import Sensitivity

    subject = subject_of(record, outputs, options.stage)
    bench = bench_of(record, outputs, subject.stage, options.rows, options.accelerator)
    quantization, rows = bench.quantization, bench.rows
    groups = groups_of(quantization.sites, work_of(quantization), options.by)
    begin = Sensitivity(
        record.key, subject.title, subject.stage, rows.task.metrics[0], rows.split, rows.count, options.by,
        groups=to_measure(groups),
    )  # fmt: skip
    return Sweep(bench, begin)


def _show(found: Sensitivity, outputs: Path) -> None:
    from qexp.reporting.charts.matplotlib import write_plots
    from qexp.reporting.charts.sensitivity import FOLDER, chart_of, csv_of, table_of
    from qexp.reporting.charts.spec import Gallery
    from qexp.reporting.table import markdown

    stem = FOLDER if found.by == "group" else f"{FOLDER}-{found.by}"
    folder = outputs / FOLDER / found.run
    text = markdown(table_of(found))
    for ending, content in (("json", found.to_json()), ("md", text), ("csv", csv_of(found))):
        write_text(folder / f"{stem}.{ending}", content)
    print_out(text)
    if chart := chart_of(found, stem, found.title):
        write_plots([Gallery(FOLDER, "", (chart,), "", "")], folder)
    print(f"files: {folder / stem}.*", file=sys.stderr)


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
        "--by", choices=BY, default="group",
        help="what is switched at once: what a runtime computes together, such as queries, keys and values "
        "of an attention (group, the default), a layer of the model, or all sites of a kind",
    )  # fmt: skip
    add_stage(parser, RANGES)
    return parser
