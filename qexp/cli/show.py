"""Show one run: ``qexp show RUN``.

Exit codes: 0, shown; 2, there is no such run.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qexp.cli.options import add_run, ended
from qexp.console import print_out
from qexp.environment import conf_folder
from qexp.errors import OK, QexpError
from qexp.records.record import outputs_root

if TYPE_CHECKING:
    from qexp.reporting.run_view import RunView


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the run, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("show", lambda: _show(options), "nothing was shown")


def _show(options: argparse.Namespace) -> int:
    from qexp.analysis.find_run import find_record
    from qexp.reporting.run_details import details
    from qexp.reporting.run_view import RunView

    outputs: Path = options.outputs or outputs_root()
    run = RunView(find_record(options.run, outputs))
    width = shutil.get_terminal_size().columns
    print_out(details(run, outputs, default_experiment(run), width=width))
    return OK


def default_experiment(run: RunView) -> dict[str, Any] | None:
    """Return the experiment of a run's task with nothing else chosen; None if it cannot be composed."""
    from pydantic import ValidationError

    from qexp.cli.run import composed
    from qexp.config import Experiment

    overrides = run.record.overrides or []
    words = [word for word in overrides if word.startswith(("task=", "data.path=", "--config-dir="))]
    words += [word for word in overrides if word.startswith("data.") and word not in words]
    if not any(word.startswith("task=") for word in words):
        known = (conf_folder() / "task" / f"{run.task}.yaml").is_file()
        words.append(f"task={run.task if known else run.find('task.kind')}")
    try:
        return Experiment.model_validate(composed(words)).model_dump(mode="json")
    except (QexpError, ValidationError):
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp show",
        description="Shows a run: the command that makes it again, settings that differ from the defaults "
        "of its "
        "task, scores, sizes and latencies, stages with their times, paths of its files, warnings, and the "
        "error "
        "of a failed one.",
        epilog="Exit code 0: shown; 2: there is no such run.",
    )
    add_run(parser)
    return parser
