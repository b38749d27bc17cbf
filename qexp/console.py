"""Printing to a reader that may have gone."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def print_out(text: str) -> None:
    """Print as it is, and stop quietly where the reader of a pipe (``| head``) has gone."""
    write_out(sys.stdout, text)


def write_out(stream: TextIO, text: str) -> bool:
    """Write as it is to a stream with a file behind it; whether somebody still reads it.

    Where nobody does, what follows goes nowhere, so that the process ends quietly.
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
