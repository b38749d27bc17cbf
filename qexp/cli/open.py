"""Open the page of all runs in a browser: ``qexp open``.

Exit codes: 0, opened, or its path was printed where there is no browser; 1, it could not be written; 2, there
are no runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from qexp.cli.options import add_outputs, ended
from qexp.console import print_out, shown_path
from qexp.errors import OK, StoreError
from qexp.records.record import outputs_root, records_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the page if it is out of date, open it, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("open", lambda: _open(options.outputs or outputs_root()), "nothing was opened")


def _open(outputs: Path) -> int:
    page = outputs / "report.html"
    if _is_outdated(page, outputs):
        from qexp.cli import report

        code = report.main(["--outputs", str(outputs), "--html"])
        if not page.is_file() or code not in (OK, 1):
            return code
    else:
        print_out(f"{shown_path(page)}\n")
    if not _open_in_browser(page):
        print("no browser here: open that file in one", file=sys.stderr)
    return OK


def _is_outdated(page: Path, outputs: Path) -> bool:
    """Return whether a Record, or the folder of Records, is newer than the page.

    Raises:
        StoreError: There are no Records.
    """
    folder = records_folder(outputs)
    records = [file for file in folder.glob("*.json") if file.name[0] != "."]
    if not records:
        raise StoreError(f"no Records in {folder}; make one, such as: qexp task=mrpc quant=w8a8")
    newest = max(path.stat().st_mtime for path in (folder, *records))
    return not page.is_file() or page.stat().st_mtime < newest


def _open_in_browser(page: Path) -> bool:
    """Return whether a browser with windows opened the page; one for terminals would take this terminal."""
    graphical = (
        sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if not (graphical or os.environ.get("BROWSER")):
        return False
    try:
        return webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp open",
        description="Opens the page of all tables and charts in a browser. It is written first where a "
        "Record is "
        "newer, as qexp report --html does. Where there is no browser, its path is printed.",
        epilog="Exit code 0: opened or printed; 1: it could not be written; 2: there are no runs.",
    )
    add_outputs(parser)
    return parser
