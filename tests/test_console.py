"""Output to a pipe whose reader closes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qexp.console import write_out


def test_a_reader_that_goes_ends_nothing_in_a_traceback() -> None:
    """More than a pipe holds, to a reader of one line; the process then goes on to its own exit code."""
    program = "from qexp.console import print_out\nprint_out('line\\n' * 100_000)\nraise SystemExit(3)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline() == b"line\n"
        writer.stdout.close()
        assert writer.stderr.read() == b""
        assert writer.wait() == 3


@pytest.mark.parametrize(("encoding", "written"), [("utf-8", "é\\ud9ff"), ("ascii", "\\xe9\\ud9ff")])
def test_what_an_encoding_lacks_is_escaped(encoding: str, written: str, tmp_path: Path) -> None:
    """Such characters come from files of the user, and end in messages."""
    with (tmp_path / "out").open("w", encoding=encoding) as stream:
        assert write_out(stream, "é\ud9ff")
    assert (tmp_path / "out").read_text(encoding=encoding) == written
