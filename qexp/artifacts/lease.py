"""Leases for mutual exclusion, also between machines that share a file system without locks.

A lease is a file whose holder updates its time stamp at intervals. It ends when the holder releases it, on
the same machine as soon as the holder's process is dead, and on any machine when it was not updated for
:data:`LEASE_SECONDS`. A holder that was only suspended may resume after that, which the guarded code must
tolerate: see :mod:`qexp.artifacts.store`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

LEASE_SECONDS = 60.0
"""Seconds without a heartbeat after which a lease expires. All processes that share a store must agree."""
POLL = 0.25
"""Seconds between two attempts to acquire a lease that is held."""


@contextmanager
def claimed(path: Path, waiting: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Hold a lease, and wait for it if another process has it.

    Args:
        path: File of the lease.
        waiting: Called once if the lease is not free.

    Yields:
        Function that returns whether the lease is still held. It is lost if this process sent no heartbeat
        for so long that another one took over.
    """
    lease = SoftFileLease(path, lease_duration=LEASE_SECONDS, poll_interval=POLL)
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
    """Return whether the file of a lease contains this token."""
    try:
        return token is not None and token in path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


@contextmanager
def claimed_if_free(path: Path) -> Iterator[bool]:
    """Hold a lease if it is free, without waiting.

    A lease of another machine counts as free after twice :data:`LEASE_SECONDS` without a heartbeat, by the
    file system's clock.

    Yields:
        Whether the lease is held.
    """
    if _is_silent(path):
        path.unlink(missing_ok=True)
    lease = SoftFileLease(path, lease_duration=LEASE_SECONDS)
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
    """Return whether a process holds a lease, as far as this machine can tell. Removes an expired lease."""
    if not path.exists():
        return False
    with claimed_if_free(path) as free:
        return not free


def _is_silent(path: Path) -> bool:
    """Return whether a lease had no heartbeat for twice its duration, compared with a new file beside it."""
    probe = path.with_name(f".clock-{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > 2 * LEASE_SECONDS
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
