"""One process of a training: the only one, or one of several workers of a parent process.

A worker receives its plan as arguments, and reports steps, its result and its error to the parent through a
pipe. It exits as soon as the parent does, as the lock on the artifact ends with the parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
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
from qexp.data.microbatches import BatchSplit
from qexp.errors import QexpError, TrainingError
from qexp.quant.fake_quantize import choose_kernels
from qexp.training.compile import compiled
from qexp.training.interruption import FOR_WORKERS, StopRequest
from qexp.training.plans import TrainingPlan
from qexp.training.selection import WeightSelector
from qexp.training.trainer import BACKEND, WorkerContext, fit

Facts = Mapping[str, Any]
Move = Callable[..., None]


@dataclass(frozen=True)
class StepDone:
    """Message that a step was taken."""

    note: str


@dataclass(frozen=True)
class WorkerResult:
    """Message that all steps were taken and the result was saved."""

    facts: Facts


@dataclass(frozen=True)
class WorkerError:
    """Message with the error that ended a worker early."""

    error: Exception
    died: bool = False
    """Whether the worker was killed, or exited without a message."""
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class WorkerStopped:
    """Message that a worker has ended because its parent asked for it."""

    message: str


def train_worker(
    plan: TrainingPlan, folder: Path, worker: WorkerContext, advance: Move, *, stop: StopRequest
) -> Facts:
    """Run the steps of one process; rank 0 saves the result and returns its facts, others return none."""
    set_threads(worker.threads)
    choose_kernels(worker.numerics.kernels)
    parts = BatchSplit.of(worker.numerics, worker.rank)
    steps = plan.steps(parts)
    module, selection = plan.module(steps.count, parts), plan.selection(steps)
    selector = WeightSelector(selection, worker.scratch) if selection else None
    with compiled(module.model, worker.numerics.compile):
        losses = fit(
            module, steps, title=plan.title, worker=worker, advance=advance, stop=stop, selector=selector
        )
    history = {"steps": len(losses), "loss": losses, "resumed_at": worker.resumed_at}
    if selector:
        history |= {"planned_steps": steps.count, "selection": selector.facts}
    return history | dict(plan.save(module, folder)) if worker.rank == 0 else {}


def worker_main(plan: TrainingPlan, folder: Path, worker: WorkerContext, port: int, pipe: Connection) -> None:
    """Entry point of a worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stop = StopRequest(FOR_WORKERS)

    def advance(_: int = 1, note: str = "") -> None:
        if worker.rank == 0:
            pipe.send(StepDone(note))

    try:
        with stop.listening():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_WORKERS)
            _connect(worker, port)
            pipe.send(WorkerResult(train_worker(plan, folder, worker, advance, stop=stop)))
        distributed.destroy_process_group()
    except KeyboardInterrupt as end:
        pipe.send(WorkerStopped(str(end)))
        os._exit(0)  # as below
    except Exception as error:
        pipe.send(WorkerError(_portable(error, plan.title, worker)))
        os._exit(1)  # a regular exit would wait for the other workers


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _connect(worker: WorkerContext, port: int) -> None:
    """Join the process group through the parent's store, so that no free port has to be guessed."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # independent of how the host name resolves
    numerics, device = worker.numerics, None
    if numerics.device == "gpu":
        device = torch.device("cuda", worker.rank)
        torch.cuda.set_device(device)
    store = TCPStore("127.0.0.1", port, is_master=False)
    distributed.init_process_group(
        BACKEND[numerics.device], store=store, rank=worker.rank, world_size=numerics.devices, device_id=device
    )


def _portable(error: BaseException, title: str, worker: WorkerContext) -> Exception:
    """Return the error in a form that the parent can raise, with the traceback of this process as a note."""
    portable: Exception
    if isinstance(error, QexpError):
        portable = type(error)(str(error))
    elif isinstance(error, OSError) and error.errno is not None:
        portable = OSError(error.errno, error.strerror, error.filename)  # the store formats its message
    else:
        portable = TrainingError(f"{title}: {type(error).__name__}: {error}")
    text = "".join(traceback.format_exception(error))
    portable.add_note(f"in process {worker.rank + 1} of {worker.numerics.devices}:\n{text}")
    return portable
