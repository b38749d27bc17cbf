"""One process at a time, also between machines that share a file system without locks.

A claim is a file that its holder touches now and then. It ends when it is released; when its process is seen
to be dead, at once on the same machine; and anywhere when nobody touched it for :data:`SILENCE` seconds.
What a claim guards must bear that a holder which was only asleep wakes up: see :mod:`qexp.artifacts.store`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

SILENCE = 60.0
"""Seconds without a sign of life after which a claim is taken over. All who share a store must agree."""
POLL = 0.25
"""Seconds between two looks at a claim that is held."""


@contextmanager
def claimed(path: Path, waiting: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Hold a claim; ``waiting`` is told once if another process has it.

    Gives a function that says whether the claim is still held: not, if this process made no sign of life for
    so long that another one took over.
    """
    lease = SoftFileLease(path, lease_duration=SILENCE, poll_interval=POLL)
    try:
        lease.acquire(timeout=0)
    except Timeout:
        waiting()
        lease.acquire()
    try:
        yield lambda: _names(path, lease.token)
    finally:
        lease.release()


def _names(path: Path, token: str | None) -> bool:
    """Whether the claim that stands in the file is ours."""
    try:
        return token is not None and token in path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


@contextmanager
def claimed_if_free(path: Path) -> Iterator[bool]:
    """Hold a claim if nobody else does, as far as this machine can tell now; gives whether it is held.

    That of another machine has ended when nobody touched it for twice the silence by the file system's clock.
    """
    if _is_silent(path):
        path.unlink(missing_ok=True)
    lease = SoftFileLease(path, lease_duration=SILENCE)
    try:
        lease.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lease.release()


def is_claimed(path: Path) -> bool:
    """Whether some process holds a claim, as far as this machine can tell; one that has ended is removed."""
    if not path.exists():
        return False
    with claimed_if_free(path) as free:
        return not free


def _is_silent(path: Path) -> bool:
    """Whether a file is that old, compared with one that is written beside it now."""
    probe = path.with_name(f".clock-{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > 2 * SILENCE
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
