"""wandb's service, which is a process of its own: ended well, or killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


def end_service() -> None:
    """Let wandb end its service, if it was ever imported."""
    if "wandb" in sys.modules:
        with suppress(SystemExit):
            sys.modules["wandb"].teardown()


def kill_service() -> None:
    """Kill the service of this process."""
    found = [pid for pid in _children() if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(found) == 1, found
    os.kill(found[0], signal.SIGKILL)
    time.sleep(0.5)


def _children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]
