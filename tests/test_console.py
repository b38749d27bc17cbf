"""Output to a pipe whose reader closes it."""

from __future__ import annotations

import subprocess
import sys


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
