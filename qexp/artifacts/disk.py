"""Atomic writes, and errors of a full or read-only disk as :class:`~qexp.errors.StoreError`."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qexp.errors import StoreError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert errors of a full or read-only disk, from any library, to a StoreError.

    Raises:
        StoreError: The disk is full, over its quota, or may not be written.
    """
    try:
        yield
    except Exception as error:
        code = _disk_code(error)
        if code is None:
            raise
        raise _cannot_write(folder, code) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        StoreError: It cannot be created, such as where a file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error.errno or errno.EIO) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically, and create its parent folders.

    Raises:
        StoreError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    make_folder(path.parent)
    with writing(path.parent):
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _cannot_write(folder: Path, code: int) -> StoreError:
    return StoreError(
        f"cannot write below {folder}: {os.strerror(code).lower()}; free space or rights there, "
        "or set QEXP_OUTPUTS to another folder, and run the same command again"
    )


def _disk_code(error: BaseException) -> int | None:
    """Return the errno of an error about the disk; C++ and Rust libraries report only its message."""
    number = getattr(error, "errno", None)
    if number in (*_NO_SPACE, *_NO_WRITE):
        return int(number)
    message = str(error)
    return next((code for code in _NO_SPACE if os.strerror(code) in message), None)
