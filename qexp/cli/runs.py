"""List the runs in the outputs: ``qexp runs task=mrpc --sort=-qat``.

Exit codes: 0, listed; 2, there are no runs, or no column of that name.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from qexp.cli.options import add_outputs, ended, positive
from qexp.console import print_out, shown_path
from qexp.errors import OK, ConfigError, StoreError
from qexp.records.record import outputs_root, read_all, records_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("runs", lambda: _list(options), "nothing was listed")


def _list(options: argparse.Namespace) -> int:
    from qexp.records.outcome import outcome
    from qexp.reporting.run_list import facts_of, ordered, run_table, selected
    from qexp.reporting.run_view import RunView

    outputs: Path = options.outputs or outputs_root()
    folder = records_folder(outputs)
    records, unreadable = read_all(folder) if folder.is_dir() else ([], [])
    for each in unreadable:
        print(f"qexp runs: left out {shown_path(each.path)}: {each.reason}", file=sys.stderr)
    if not records:
        raise StoreError(
            f"no Records in {folder}; make one, such as: qexp task=mrpc quant=w8a8, or name other outputs "
            "with "
            "--outputs"
        )
    runs = [RunView(record) for record in records]
    found = ordered(selected(runs, [_filter(word) for word in options.filters]), options.sort)
    shown = found[: options.limit] if options.limit else found
    if options.json:
        print_out(json.dumps([facts_of(run) for run in shown], ensure_ascii=False, indent=1) + "\n")
        return OK
    if shown:
        print_out(run_table(shown, width=shutil.get_terminal_size().columns))
    notes = [f"{len(shown)} of {len(runs)} runs"] if len(shown) < len(runs) else []
    outcomes = {outcome(run.record) for run in shown}
    if "failed" in outcomes:
        notes.append("x: failed; qexp show KEY says why, qexp clean removes those that never began")
    if "interrupted" in outcomes:
        notes.append("i: interrupted; the same command, or qexp again KEY, goes on from there")
    print("\n".join(notes) or f"{len(runs)} runs", file=sys.stderr)
    return OK


def _filter(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not sign:
        raise ConfigError(f"{word}: a filter is column=value, such as task=mrpc, quant=w8*, status=failed")
    return {"tag": "tags", "recipes": "recipe", "models": "model"}.get(name, name), value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp runs",
        description="Lists runs, the newest first: key, age, task, model, recipe, bit-widths, method, the "
        "task's "
        "first score of each stage, the gate of the exported graph, and tags. Names of runs for other "
        "commands: "
        "last, TASK, TASK/QUANT, or the beginning of a key.",
        epilog="Exit code 0: listed; 2: there are no runs, or no such column.",
    )
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="COLUMN=VALUE",
        help="only runs that have it: a column, or a field of the experiment; values may be globs, such as "
        "quant=w4* tags=baseline method.ranges=learned status=failed, or =interrupted",
    )
    parser.add_argument(
        "--sort",
        default="age",
        metavar="COLUMN",
        help="sort by a column or field; --sort=-qat has the best QAT score first (default: age)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON with all digits and whole keys")
    add_outputs(parser)
    return parser
