"""Show what two runs differ in: ``qexp diff A B``.

Exit codes: 0, shown; 2, there is no such run.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from qexp.cli.options import RUN_HELP, add_outputs, ended
from qexp.console import print_out
from qexp.errors import OK
from qexp.records.record import outputs_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the differences, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("diff", lambda: _diff(options), "nothing was shown")


def _diff(options: argparse.Namespace) -> int:
    from qexp.analysis.find_run import find_record
    from qexp.reporting.run_details import differences
    from qexp.reporting.run_view import RunView

    outputs: Path = options.outputs or outputs_root()
    first, second = (RunView(find_record(name, outputs)) for name in (options.a, options.b))
    print_out(differences(first, second, width=shutil.get_terminal_size().columns))
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp diff",
        description="Shows the settings, rows, versions and scores in which two runs differ. Whether a "
        "difference of scores is more than chance, qexp compare says.",
        epilog="Exit code 0: shown; 2: there is no such run.",
    )
    parser.add_argument("a", metavar="A", help=RUN_HELP)
    parser.add_argument("b", metavar="B", help="likewise")
    add_outputs(parser)
    return parser
