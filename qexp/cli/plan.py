"""Show what a run or a sweep would compute, without computing it: ``qexp plan task=mrpc quant=w8a8``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qexp.cli.overrides import DRY_RUN


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan of the overrides, and return the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or {"-h", "--help"} & {*argv}:
        parser = _parser()
        parser.parse_args([each for each in argv if each in ("-h", "--help")])  # prints the help and ends
        parser.error("name what to plan, such as task=mrpc quant=w8a8")
    from qexp.cli.run import main as run

    return run([*argv, DRY_RUN])


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="qexp plan",
        usage="qexp plan [-m] group=option ... [field=value ...] [--config-dir DIR] [--config-name NAME]",
        description="Shows what a run or a sweep (-m, or a file of sweeps/) would compute: its stages, how "
        "many of them "
        "are in the store, and how long the others may take by the Records of earlier runs. Rows and "
        "checkpoint "
        "are looked up, and refused as a run would; GPUs and runtimes are not, since a plan may be made on "
        "another machine. Nothing is computed or written.",
        epilog="Exit code 0: all jobs can run; 2: one was refused, and the plan says why. "
        "qexp --help lists groups and options.",
    )
