"""Output to streams whose reader may close the pipe, and paths as a reader can paste them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO


def shown_path(path: Path) -> Path:
    """Return a path as it can be pasted here: relative if it is below the current folder, else absolute."""
    whole, here = path.absolute(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def print_out(text: str) -> None:
    """Print text unchanged; a pipe that its reader has closed (``| head``) raises nothing."""
    write_out(sys.stdout, text)


def write_out(stream: TextIO, text: str) -> bool:
    """Write text unchanged to a stream that has a file descriptor.

    Characters that the stream's encoding has no code for are written as escapes, as in standard error. After
    a broken pipe the descriptor points to the null device, so that later output is discarded and the process
    exits without a traceback.

    Returns:
        Whether the stream still has a reader.
    """
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
