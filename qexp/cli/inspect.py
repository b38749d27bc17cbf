"""Show the layers of a run's quantized model: ``qexp inspect RUN``.

Exit codes: 0, shown; 2, not shown, with the reason and the next step on stderr; 130, interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from qexp.analysis.find_run import RANGES, QuantizedRun, find_record, folder_of, subject_of
from qexp.artifacts.types import Statistics
from qexp.cli.options import add_run, add_stage, ended
from qexp.console import print_out
from qexp.errors import OK, QuantizationError
from qexp.naming import StageName
from qexp.records.record import Record, outputs_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the requested layers, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("inspect", lambda: _show(options), "nothing was shown")


def _show(options: argparse.Namespace) -> int:
    outputs: Path = options.outputs or outputs_root()
    record = find_record(options.run, outputs)
    subject = subject_of(record, outputs, options.stage)
    if options.against:
        _show_comparison(subject, find_record(options.against, outputs), options)
        return OK
    if options.dimensions:
        if subject.quant_config.observes_nothing:
            raise QuantizationError(
                f"--dimensions: {subject.title} has observed no values, since all ranges of activations are "
                "found at run time; show a run with scheme.activation.dynamic=null"
            )
        _show_dimensions(
            Statistics(folder_of(record, StageName.STATISTICS, outputs), "").file, subject.title, options
        )
        return OK

    from qexp.analysis.histograms import draw
    from qexp.analysis.layers import chosen, layers_of, load
    from qexp.analysis.layers_text import in_full, listing

    layers = layers_of(load(subject))
    if options.layer:
        layers = chosen(layers, options.layer)
    if options.png:
        draw(layers, options.png, subject.title)
    body = "\n\n".join(map(in_full, layers)) if options.layer else listing(layers)
    print_out(f"{subject.title}\n{body}\n")
    return OK


def _show_comparison(subject: QuantizedRun, other: Record, options: argparse.Namespace) -> None:
    from qexp.analysis.range_comparison import compare_ranges, comparison_listing

    there = subject_of(other, options.outputs or outputs_root(), options.stage)
    pairs = compare_ranges(subject.ranges.file, there.ranges.file)
    print_out(f"{subject.title}\n{comparison_listing(pairs, there.title)}\n")


def _show_dimensions(file: Path, title: str, options: argparse.Namespace) -> None:
    from qexp.analysis.dimensions import dimension_listing, dimensions_of, draw_dimensions
    from qexp.quant.calibration.statistics import CalibrationStatistics as Seen

    dimensions = dimensions_of(Seen.load(file))
    draw_dimensions(dimensions, options.dimensions, title)
    print_out(f"{title}\n{dimension_listing(dimensions)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp inspect",
        description="Looks at the quantized model of a run: all its layers in a list, or some of them "
        "with their integer weights, scales, ranges and histograms. Nothing is computed anew.",
        epilog="Exit code 0: shown; 2: there is nothing to show, and stderr says why.",
    )
    add_run(parser)
    parser.add_argument(
        "--layer",
        action="append",
        metavar="GLOB",
        help="show these layers in full, such as '*.layer.0.*query'; repeat it for several",
    )
    add_stage(parser, RANGES)
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="also write histograms of the integer weights into a PNG"
    )
    parser.add_argument(
        "--dimensions",
        type=Path,
        metavar="FILE",
        help="instead: ranges of the embedding dimensions of activations, as a list and a PNG",
    )
    parser.add_argument(
        "--against",
        metavar="RUN",
        help="instead: each range beside that of another run of the model, such as imported ranges beside "
        "calibrated ones",
    )
    return parser
