"""Run an experiment again, with changes: ``qexp again RUN quant=w4a8``.

Exit codes: those of a run; 2 if there is no such run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from qexp.cli.options import RUN_HELP
from qexp.environment import check_environment
from qexp.errors import INVALID, QexpError
from qexp.records.record import Record, outputs_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment of a run with the changes, and return the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    options, changes = _parser().parse_args(argv[:1]), argv[1:]
    if {"-h", "--help"} & {*changes}:
        _parser().parse_args(["--help"])
    try:
        check_environment()
        words = changed(typed_arguments(_record(options.run)), changes)
    except QexpError as error:
        print(f"qexp again: {error}", file=sys.stderr)
        return INVALID
    from qexp.cli.run import main as run
    from qexp.reporting.command import shell_command

    print(shell_command(words), file=sys.stderr)
    return run(words)


def _record(name: str) -> Record:
    from qexp.analysis.find_run import find_record

    return find_record(name, outputs_root())


def typed_arguments(record: Record) -> list[str]:
    """Return the arguments that made a run, or those that follow from its settings if these are not kept."""
    from qexp.reporting.command import command_of
    from qexp.reporting.run_view import RunView

    if record.overrides is not None:
        return list(record.overrides)
    return shlex.split(command_of(RunView(record)))[3:]


def changed(typed: Sequence[str], changes: Sequence[str]) -> list[str]:
    """Return arguments with changes in place of what was typed for the same group or field.

    An option of a group takes the place of the earlier option and of its fields, ``~field`` removes what was
    typed, and tags and note go, since they are of the other run.
    """
    if not changes:
        return list(typed)
    names = {_name(word) for word in changes if not word.startswith("-")} | {"tags", "note"}
    replaced = [word for word in typed if not word.startswith("-") and _is_replaced(_name(word), names)]
    removed = {f"~{_name(word)}" for word in replaced}
    kept = [word for word in typed if word not in replaced]
    return [*kept, *(word for word in changes if word not in removed)]


def _is_replaced(name: str, names: set[str]) -> bool:
    return name in names or name.partition(".")[0] in names


def _name(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp again",
        usage="qexp again RUN [group=option ...] [field=value ...] [--dry-run] [-m] [--cfg job]",
        description="Runs the experiment of a run again, with changes: what was typed for it, --config-dir "
        "included, and then the changes. An option of a group takes the place of the earlier one and of "
        "its fields; "
        "~field leaves out what was typed; tags and note are not taken over. The command is printed first, "
        "--dry-run plans it, and what did not change is found in the store.",
        epilog="Exit code: that of the run; 2: there is no such run, or a change was refused.",
    )
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    return parser
