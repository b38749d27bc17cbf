"""Printing to a reader that may have gone."""

from __future__ import annotations

import os
import sys


def print_out(text: str) -> None:
    """Print as it is, and stop quietly where the reader of a pipe (``| head``) has gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
