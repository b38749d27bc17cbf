"""Leases: a single holder, heartbeats, and expiry when the holder is dead."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qexp.artifacts.lease import claimed, is_claimed

_HOLD = """
import sys, time
from pathlib import Path
from qexp.artifacts.lease import claimed
with claimed(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""
_ELSEWHERE = """
import socket
import qexp.artifacts.lease
socket.gethostname = lambda: "elsewhere"
qexp.artifacts.lease.LEASE_SECONDS = 1.0
"""


def _never() -> None:
    raise AssertionError("nobody else holds the claim")


def test_only_one_holds_a_claim_at_a_time(tmp_path: Path) -> None:
    inside, most, waits = 0, 0, []
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with claimed(tmp_path / "a.lease", lambda: waits.append(1)):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert waits
    assert not is_claimed(tmp_path / "a.lease")


def test_claim_of_a_living_process_is_seen_and_that_of_a_killed_one_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.lease"
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_claimed(path)
        process.kill()
    assert not is_claimed(path)
    with claimed(path, _never) as held:
        assert held()


def test_claim_of_another_machine_ends_after_its_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.artifacts.lease.LEASE_SECONDS", 1.0)
    path, waits = tmp_path / "a.lease", []
    with subprocess.Popen(
        [sys.executable, "-c", _ELSEWHERE + _HOLD, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    assert "elsewhere" in path.read_text(encoding="utf-8")
    started = time.monotonic()
    with claimed(path, lambda: waits.append(1)) as held:
        assert held()
    assert waits
    assert time.monotonic() - started >= 1.0


def test_no_claim_where_there_is_no_file(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path / "a.lease")
    assert not list(tmp_path.iterdir())
