"""Remove what is of no use: ``qexp clean``.

Exit codes: 0, removed; 1, something could not be removed; 2, not possible while runs go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from qexp.cli.options import add_outputs, ended
from qexp.cli.store import add_collect_options, collect
from qexp.console import print_out
from qexp.errors import FAILED, OK, StoreError
from qexp.records.record import outputs_root, read_all, records_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Remove Records of runs that never began and waste in the store, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("clean", lambda: _clean(options), "what was removed is gone, the rest is whole")


def _clean(options: argparse.Namespace) -> int:
    outputs: Path = options.outputs or outputs_root()
    if not outputs.is_dir():
        raise StoreError(f"{outputs}: no such folder; a run makes it, or name other outputs with --outputs")
    try:
        files = list(never_began(outputs, options.older_than))
        for file in files if not options.dry_run else ():
            file.unlink(missing_ok=True)
        if options.dry_run:
            print_out("".join(f"records/{file.name}\n" for file in files))
        verb = "would remove" if options.dry_run else "removed"
        print_out(f"{verb} {len(files)} Records of failed runs that never began\n")
        return collect(outputs, options) if (outputs / "artifacts").is_dir() else OK
    except OSError as error:
        print(f"qexp clean: {error}", file=sys.stderr)
        return FAILED


def never_began(outputs: Path, older_than: float = 0.0) -> Iterator[Path]:
    """Yield the Records of failed runs that entered no stage, and so have nothing to tell but their error."""
    folder = records_folder(outputs)
    for record in read_all(folder)[0] if folder.is_dir() else ():
        file = folder / f"{record.key}.json"
        began = record.stages or record.scores or record.data
        if record.status == "failed" and not began and file.is_file() and _days(file) >= older_than:
            yield file


def _days(file: Path) -> float:
    return (time.time() - file.stat().st_mtime) / 86400


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp clean",
        description="Removes Records of failed runs that never began, and of the store what a killed "
        "process left "
        "half-made, what is damaged, and leases without a holder (as qexp store gc); never what a process "
        "has "
        "claimed, and no result.",
        epilog="Exit code 0: removed; 1: something could not be removed; 2: not possible while runs go on.",
    )
    add_outputs(parser)
    add_collect_options(parser)
    return parser
