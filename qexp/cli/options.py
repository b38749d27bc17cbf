"""Options and exit codes that the commands on runs have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from qexp.environment import check_environment
from qexp.errors import INTERRUPTED, INVALID, QexpError
from qexp.records.record import OUTPUTS_VARIABLE

RUN_HELP = "last, TASK, TASK/QUANT, the beginning of a key, or the path of a Record; qexp runs lists them"
"""What names a run (:mod:`qexp.reporting.run_names`)."""


def ended(name: str, work: Callable[[], int], interrupted: str) -> int:
    """Run the work of a command, print errors to stderr, and return the exit code.

    Args:
        name: Name of the command.
        work: Function that returns the exit code.
        interrupted: Message for Ctrl-C, unless ``work`` handles it.
    """
    try:
        check_environment()
        return work()
    except QexpError as error:
        print(f"qexp {name}: {error}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return INTERRUPTED


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the run, ``--rows``, ``--accelerator`` and ``--outputs``, for commands that measure."""
    add_run(parser)
    parser.add_argument(
        "--rows",
        type=positive,
        metavar="N",
        help="measure on the first N rows of the evaluation split (default: all that the run evaluated)",
    )
    add_accelerator(parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run and ``--outputs``."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_outputs(parser)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add ``--outputs``."""
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help=f"folder that runs wrote to (default: {OUTPUTS_VARIABLE}, else ./outputs)",
    )


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """Add ``--accelerator``."""
    parser.add_argument(
        "--accelerator", choices=("cpu", "gpu"), help="what to compute on (default: what the run did)"
    )


def add_stage(parser: argparse.ArgumentParser, stages: Iterable[str]) -> None:
    """Add ``--stage`` with some of ``fp32 control ptq qat`` as choices."""
    parser.add_argument(
        "--stage",
        choices=tuple(stages),
        help="which model of the run: as calibrated (ptq), as trained with quantization (qat), ...; "
        "default: the last one of the run",
    )


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number


def comma_separated(text: str) -> list[str]:
    """Split ``"a,b"`` to ``["a", "b"]``."""
    return text.split(",")
