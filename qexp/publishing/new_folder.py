"""A new folder that has its name when everything is in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qexp.errors import StoreError

LONGEST_PREFIX = 96
"""Maximum number of characters that a temporary folder takes from the name."""


def check_free(folder: Path) -> None:
    """Check that writing to ``folder`` overwrites nothing.

    Raises:
        StoreError: The path exists and is not an empty folder.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise StoreError(f"{folder}: is there and not empty; name a new folder, or remove what is in it")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Return a temporary folder to fill, which becomes ``folder`` unless an exception is raised.

    Raises:
        StoreError: The folder exists and is not empty, or cannot be written.
    """
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:LONGEST_PREFIX]}.", dir=folder.parent))
        try:
            yield work
            work.chmod(0o777 & ~_umask())
            os.replace(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror or error}; make room, or name another folder"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
