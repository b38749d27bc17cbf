"""Training in this process, or in several worker processes that share each batch.

Worker processes are children that this process starts, monitors and ends; Lightning starts none. Each worker
builds the module from the plan, and ``torch.distributed`` connects the workers.

- An error in one worker ends all of them and is raised here; qexp's own errors and OSError keep their type.
- Ctrl-C and SIGTERM reach this process only. It asks all workers to save the current step and to end.
- When this process is killed, the workers exit.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from qexp.records.schema import describe_kept
from qexp.training.interruption import FOR_WORKERS, NOTICE, StopRequest, interrupted
from qexp.training.plans import TrainingPlan
from qexp.training.trainer import CHECKPOINT, WorkerContext
from qexp.training.worker import (
    Facts,
    Move,
    StepDone,
    WorkerError,
    WorkerResult,
    WorkerStopped,
    train_worker,
    worker_main,
)

Message = StepDone | WorkerResult | WorkerStopped | WorkerError
ERROR_GRACE_SECONDS = 1.0
"""Seconds to wait, after a first error, for those of other workers, one of which may be the cause."""
STOP_SECONDS = 5.0
"""Seconds that workers have to save the current step once they are asked to stop, besides three steps."""
POLL_SECONDS = 0.2
"""Seconds between two looks at whether they are to stop."""
ENDING = 30.0
"""Seconds that a worker has to exit after it sent its result or closed its pipe."""


def train(plan: TrainingPlan, folder: Path, scratch: Path, ctx: RunContext) -> dict[str, Any]:
    """Run a training, in one process per device of its numerics, and save the result to ``folder``.

    Returns:
        ``steps``, ``loss`` (of every step), ``resumed_at`` (step of the checkpoint in ``scratch``, or 0),
        and the facts that ``plan.save`` returns. Where weights are chosen, also ``planned_steps`` and
        ``selection`` (:class:`qexp.records.schema.KeptWeights`).

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
        stop = StopRequest(requested=lambda: ctx.console.info(f"  {NOTICE}"))
        try:
            facts = dict(conduct(plan, folder, worker, advance, stop=stop))
        except KeyboardInterrupt as end:
            if stop.number == signal.SIGTERM:
                ctx.console.info(str(end))
                stop.end("")
            raise
    if chosen := facts.get("selection"):
        ctx.console.info(f"  keeps {describe_kept(chosen)}")
    return facts


def resumed_at(checkpoint: Path, ctx: RunContext) -> int:
    """Return the step of a checkpoint, or 0 without one; a damaged file is deleted with a warning."""
    if not checkpoint.exists():
        return 0
    try:
        step = step_of(checkpoint)
    except Exception as error:  # a damaged file raises whatever its damaged bytes lead to
        ctx.console.warn(f"{checkpoint.name} is damaged ({type(error).__name__}); the training starts over")
        checkpoint.unlink()
        return 0
    ctx.console.info(f"  goes on after step {step}")
    return step


def step_of(checkpoint: Path) -> int:
    """Return the step of an intact checkpoint."""
    return int(torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")["global_step"])


def _attend_together(
    plan: TrainingPlan, folder: Path, worker: WorkerContext, advance: Move, *, stop: StopRequest
) -> Facts:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children: list[WorkerProcess] = []
    with stop.listening():
        try:
            with _without_interrupts():
                for rank in range(worker.numerics.devices):
                    children.append(WorkerProcess(plan, folder, replace(worker, rank=rank), store.port))
            return _await(children, plan, advance, stop)
        except KeyboardInterrupt as end:
            if end.args:
                raise
            step = step_of(worker.checkpoint) if worker.checkpoint.exists() else 0
            steps = plan.steps(BatchSplit()).count
            raise interrupted(plan.title, step, steps) from None
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

    def stop(self) -> None:
        """Ask the worker to save its current step and to end."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, FOR_WORKERS[0])

    def receive(self, title: str) -> Message:
        """Wait for the next message; a closed pipe counts as a :class:`WorkerError`."""
        try:
            message: Message = self.pipe.recv()
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


def _await(children: Sequence[WorkerProcess], plan: TrainingPlan, advance: Move, stop: StopRequest) -> Facts:
    """Wait until all workers are done, and return the facts of the one that saved the result.

    Raises:
        KeyboardInterrupt: The workers were asked to stop, and did or did not within ``STOP_SECONDS``.
    """
    working = {child.pipe: child for child in children}
    facts: Facts = {}
    pace = StepPace()
    for pipe in _ready(working, stop, pace):
        child = working[pipe]
        match child.receive(plan.title):
            case StepDone(note):
                pace.step()
                advance(1, note=note)
            case WorkerResult(result):
                facts = facts or result
                del working[child.pipe]
            case WorkerStopped(message):
                del working[child.pipe]
                if child.worker.rank == 0:  # it writes the checkpoint
                    raise KeyboardInterrupt(message)
            case WorkerError() as error:
                del working[child.pipe]
                if stop.made and error.died:
                    raise KeyboardInterrupt
                raise _cause([error, *_listen(working, plan.title)])
    for child in children:
        child.process.join(ENDING)
    return facts


@dataclass
class StepPace:
    """Longest time between two steps."""

    longest: float = 0.0
    last: float | None = None

    def step(self) -> None:
        """Note that a step is done."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last) if self.last else 0.0
        self.last = now


def _ready(
    working: Mapping[Connection, WorkerProcess], stop: StopRequest, pace: StepPace
) -> Iterator[Connection]:
    """Yield the pipe of each worker that has a message, as long as any works; pass on a request to stop."""
    deadline = math.inf
    while working:
        for pipe in connection.wait(list(working), timeout=POLL_SECONDS):
            if pipe in working:
                yield pipe  # type: ignore[misc]
        if stop.made and deadline == math.inf:
            deadline = time.monotonic() + STOP_SECONDS + 3 * pace.longest
            for child in working.values():
                child.stop()
        if time.monotonic() > deadline:
            raise KeyboardInterrupt


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
    """Block signals inside the context; processes started in it inherit the mask, and never get Ctrl-C."""
    resource_tracker.ensure_running()  # its start would unblock signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, *FOR_WORKERS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
