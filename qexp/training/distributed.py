"""Training in this process, or in several worker processes that share each batch.

Worker processes are children that this process starts, monitors and ends; Lightning starts none. Each worker
builds the module from the plan, and ``torch.distributed`` connects the workers.

- An error in one worker ends all of them and is raised here; qexp's own errors and OSError keep their type.
- Ctrl-C is raised in this process only, and ends all workers.
- When this process is killed, the workers exit.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from qexp.context import RunContext, check_devices
from qexp.data.microbatches import BatchSplit
from qexp.errors import TrainingError
from qexp.training.plans import TrainingPlan
from qexp.training.trainer import CHECKPOINT, WorkerContext
from qexp.training.worker import Facts, Move, StepDone, WorkerError, WorkerResult, train_worker, worker_main

ERROR_GRACE_SECONDS = 1.0
"""Seconds to wait, after a first error, for those of other workers, one of which may be the cause."""
ENDING = 30.0
"""Seconds that a worker has to exit after it sent its result or closed its pipe."""


def train(plan: TrainingPlan, folder: Path, scratch: Path, ctx: RunContext) -> dict[str, Any]:
    """Run a training, in one process per device of its numerics, and save the result to ``folder``.

    Returns:
        ``steps``, ``loss`` (of every step), ``resumed_at`` (step of the checkpoint in ``scratch``, or 0),
        and the facts that ``plan.save`` returns.

    Raises:
        ConfigError: If there are fewer devices than requested.
        TrainingError: If the loss is NaN or infinite, or a worker was killed.
    """
    check_devices(ctx.machine)
    numerics = plan.training_setup.numerics
    worker = WorkerContext(
        numerics,
        scratch,
        ctx.machine.checkpoint_seconds,
        threads=max(1, ctx.threads // numerics.devices),
        resumed_at=resumed_at(scratch / CHECKPOINT, ctx),
    )
    steps = plan.steps(BatchSplit())
    with ctx.console.bar(
        plan.title, steps.count, worker.resumed_at, unit="steps", rows=steps.rows_per_step
    ) as advance:
        conduct = train_worker if numerics.devices == 1 else _attend_together
        return dict(conduct(plan, folder, worker, advance))


def resumed_at(checkpoint: Path, ctx: RunContext) -> int:
    """Return the step of a checkpoint, or 0 without one; a damaged file is deleted with a warning."""
    if not checkpoint.exists():
        return 0
    try:
        step = int(torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")["global_step"])
    except Exception as error:  # a damaged file raises whatever its damaged bytes lead to
        ctx.console.warn(f"{checkpoint.name} is damaged ({type(error).__name__}); the training starts over")
        checkpoint.unlink()
        return 0
    ctx.console.info(f"  goes on after step {step}")
    return step


def _attend_together(plan: TrainingPlan, folder: Path, worker: WorkerContext, advance: Move) -> Facts:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children: list[WorkerProcess] = []
    try:
        with _without_interrupts():
            for rank in range(worker.numerics.devices):
                children.append(WorkerProcess(plan, folder, replace(worker, rank=rank), store.port))
        return _await(children, plan.title, advance)
    finally:
        for child in children:
            child.end()


class WorkerProcess:
    """Handle of a worker process in its parent; the process starts with the object."""

    def __init__(self, plan: TrainingPlan, folder: Path, worker: WorkerContext, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.worker = worker
        self.pipe, child_end = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=worker_main, args=(plan, folder, worker, port, child_end), daemon=True
        )
        self.process.start()
        child_end.close()

    def receive(self, title: str) -> StepDone | WorkerResult | WorkerError:
        """Wait for the next message; a closed pipe counts as a :class:`WorkerError`."""
        try:
            message: StepDone | WorkerResult | WorkerError = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(ENDING)
            return WorkerError(_dead(title, self.worker, self.process.exitcode), died=True)
        return message

    def end(self) -> None:
        """Kill the process if it still runs; this is safe, as a next attempt resumes from the checkpoint."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def _await(children: Sequence[WorkerProcess], title: str, advance: Move) -> Facts:
    """Wait until all workers are done, and return the facts of the one that saved the result."""
    working = {child.pipe: child for child in children}
    facts: Facts = {}
    while working:
        for pipe in connection.wait(list(working)):
            child = working[pipe]  # type: ignore[index]
            match child.receive(title):
                case StepDone(note):
                    advance(1, note=note)
                case WorkerResult(result):
                    facts = facts or result
                    del working[child.pipe]
                case WorkerError() as error:
                    del working[child.pipe]
                    raise _cause([error, *_listen(working, title)])
    for child in children:
        child.process.join(ENDING)
    return facts


def _listen(working: Mapping[Connection, WorkerProcess], title: str) -> Iterator[WorkerError]:
    """Yield the errors that other workers report within ``ERROR_GRACE_SECONDS``."""
    remaining, deadline = dict(working), time.monotonic() + ERROR_GRACE_SECONDS
    while remaining and (seconds := deadline - time.monotonic()) > 0:
        for pipe in connection.wait(list(remaining), timeout=seconds):
            message = remaining[pipe].receive(title)  # type: ignore[index]
            if not isinstance(message, StepDone):
                del remaining[pipe]  # type: ignore[arg-type]
            if isinstance(message, WorkerError):
                yield message


def _cause(errors: Sequence[WorkerError]) -> Exception:
    """Return the error of a worker that died, else the first: later ones only report lost connections."""
    return min(errors, key=lambda error: (not error.died, error.at)).error


def _dead(title: str, worker: WorkerContext, code: int | None) -> TrainingError:
    how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
    return TrainingError(
        f"{title}: process {worker.rank + 1} of {worker.numerics.devices} {how}; if memory was short, set "
        "machine.accumulate to 2 or more, or lower machine.devices; the same command goes on from the last "
        "checkpoint"
    )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT inside the context; processes started in it inherit the mask and never receive Ctrl-C."""
    resource_tracker.ensure_running()  # its start would unblock signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
