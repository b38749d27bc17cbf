"""One process of a training: alone, or as one of several children of the process that asked for it.

A child is told what to do by its arguments, and tells its parent of steps, of its end and of what went
wrong through a pipe. It ends as soon as the parent is gone: with the parent goes the lock on the artifact.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from qexp.context import set_threads
from qexp.data.microbatches import Parts
from qexp.errors import QexpError, TrainingError
from qexp.quant.fake_quantize import choose_kernels
from qexp.training.compile import compiled
from qexp.training.plans import Course
from qexp.training.trainer import BACKEND, Seat, fit

Facts = Mapping[str, Any]
Move = Callable[..., None]


@dataclass(frozen=True)
class Moved:
    """A step was taken."""

    note: str


@dataclass(frozen=True)
class Done:
    """All steps were taken, and the result saved."""

    facts: Facts


@dataclass(frozen=True)
class Trouble:
    """Why a process ends before its time."""

    error: Exception
    died: bool = False
    """It was killed, or ended without a word."""
    at: float = field(default_factory=time.monotonic)


def attend(course: Course, folder: Path, seat: Seat, move: Move) -> Facts:
    """The part of one process in a training; the first one saves the result."""
    set_threads(seat.threads)
    choose_kernels(seat.numerics.kernels)
    parts = Parts.of(seat.numerics, seat.rank)
    steps = course.steps(parts)
    module = course.module(steps.count, parts)
    with compiled(module.model, seat.numerics.compile):
        losses = fit(module, steps, course.title, seat, move)
    history = {"steps": steps.count, "loss": losses, "resumed_at": seat.resumed_at}
    return history | dict(course.save(module, folder)) if seat.rank == 0 else {}


def be_child(course: Course, folder: Path, seat: Seat, port: int, pipe: Connection) -> None:
    """What a process does from its start to its end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def move(_: int = 1, note: str = "") -> None:
        if seat.rank == 0:
            pipe.send(Moved(note))

    try:
        _connect(seat, port)
        pipe.send(Done(attend(course, folder, seat, move)))
        distributed.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        pipe.send(Trouble(_portable(error, course.title, seat)))
        os._exit(1)  # an orderly end would wait for the others


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _connect(seat: Seat, port: int) -> None:
    """Join the others at the store that the parent holds, so that no port has to be guessed."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever this machine calls itself
    numerics, device = seat.numerics, None
    if numerics.device == "gpu":
        device = torch.device("cuda", seat.rank)
        torch.cuda.set_device(device)
    store = TCPStore("127.0.0.1", port, is_master=False)
    distributed.init_process_group(
        BACKEND[numerics.device], store=store, rank=seat.rank, world_size=numerics.devices, device_id=device
    )


def _portable(error: BaseException, title: str, seat: Seat) -> Exception:
    """The error as it can be raised in the parent, with the traceback of this process as a note."""
    same: Exception
    if isinstance(error, QexpError):
        same = type(error)(str(error))
    elif isinstance(error, OSError) and error.errno is not None:
        same = OSError(error.errno, error.strerror, error.filename)  # the store words it
    else:
        same = TrainingError(f"{title}: {type(error).__name__}: {error}")
    text = "".join(traceback.format_exception(error))
    same.add_note(f"in process {seat.rank + 1} of {seat.numerics.devices}:\n{text}")
    return same
