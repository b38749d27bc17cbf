"""Show what a run or a sweep would compute, without computing it: ``qexp plan task=mrpc quant=w8a8``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qexp.cli.overrides import DRY_RUN
from qexp.cli.run import main as run


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan of the overrides, and return the exit code."""
    return run([*(sys.argv[1:] if arguments is None else arguments), DRY_RUN])
