"""One training, in this process or in several that share each batch.

Several processes are children that this one starts, watches and ends; Lightning starts none. Each builds
the module from the course by itself and is connected to the others by ``torch.distributed``.

- An error in one of them ends all and is raised here, as the error that it was.
- Ctrl-C is raised here only, and ends all.
- When this process is killed, they end themselves.
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

from qexp.context import Runtime, check_devices
from qexp.data.microbatches import Parts
from qexp.errors import TrainingError
from qexp.training.plans import Course
from qexp.training.trainer import CHECKPOINT, Seat
from qexp.training.worker import Done, Facts, Move, Moved, Trouble, attend, be_child

PATIENCE = 1.0
"""Seconds in which, after a first trouble, the others may tell theirs: it may be the cause."""
ENDING = 30.0
"""Seconds in which a process that has told its result may end by itself."""


def train(course: Course, folder: Path, scratch: Path, rt: Runtime) -> dict[str, Any]:
    """Train, in as many processes as the course's numerics say, and save the result into ``folder``.

    Returns:
        ``steps``, ``loss`` (of every step), ``resumed_at`` (step of the checkpoint in ``scratch``, or 0),
        and what the course adds.

    Raises:
        ConfigError: more devices than there are.
        TrainingError: the loss is not a number, or a process was killed.
    """
    check_devices(rt.machine)
    numerics = course.schooling.numerics
    seat = Seat(
        numerics, scratch, rt.machine.checkpoint_seconds, threads=max(1, rt.threads // numerics.devices),
        resumed_at=resumed_at(scratch / CHECKPOINT, rt),
    )  # fmt: skip
    with rt.screen.bar(course.title, total=course.steps(Parts()).count, done=seat.resumed_at) as move:
        conduct = attend if numerics.devices == 1 else _attend_together
        return dict(conduct(course, folder, seat, move))


def resumed_at(checkpoint: Path, rt: Runtime) -> int:
    """Step of a checkpoint that can be read; one that cannot is dropped, with a word."""
    if not checkpoint.exists():
        return 0
    try:
        step = int(torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")["global_step"])
    except Exception as error:  # a damaged file raises whatever its damaged bytes lead to
        rt.screen.warn(f"{checkpoint.name} is damaged ({type(error).__name__}); the training starts over")
        checkpoint.unlink()
        return 0
    rt.screen.say(f"  goes on after step {step}")
    return step


def _attend_together(course: Course, folder: Path, seat: Seat, move: Move) -> Facts:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children: list[Child] = []
    try:
        with _without_interrupts():
            for rank in range(seat.numerics.devices):
                children.append(Child(course, folder, replace(seat, rank=rank), store.port))
        return _await(children, course.title, move)
    finally:
        for child in children:
            child.end()


class Child:
    """One of the processes, seen from here."""

    def __init__(self, course: Course, folder: Path, seat: Seat, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.seat = seat
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=be_child, args=(course, folder, seat, port, theirs), daemon=True
        )
        self.process.start()
        theirs.close()

    def hear(self, title: str) -> Moved | Done | Trouble:
        """The next thing it says; that its pipe is closed is one, too."""
        try:
            told: Moved | Done | Trouble = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(ENDING)
            return Trouble(_dead(title, self.seat, self.process.exitcode), died=True)
        return told

    def end(self) -> None:
        """Kill it, if it is still there: nothing is left undone that the next attempt would miss."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def _await(children: Sequence[Child], title: str, move: Move) -> Facts:
    """Listen until all are done; the facts of the first."""
    working = {child.pipe: child for child in children}
    facts: Facts = {}
    while working:
        for pipe in connection.wait(list(working)):
            child = working[pipe]  # type: ignore[index]
            match child.hear(title):
                case Moved(note):
                    move(1, note=note)
                case Done(found):
                    facts = facts or found
                    del working[child.pipe]
                case Trouble() as trouble:
                    del working[child.pipe]
                    raise _cause([trouble, *_listen(working, title)])
    for child in children:
        child.process.join(ENDING)
    return facts


def _listen(working: Mapping[Connection, Child], title: str) -> Iterator[Trouble]:
    """What else goes wrong within the time that we wait for it."""
    left, until = dict(working), time.monotonic() + PATIENCE
    while left and (rest := until - time.monotonic()) > 0:
        for pipe in connection.wait(list(left), timeout=rest):
            told = left[pipe].hear(title)  # type: ignore[index]
            if not isinstance(told, Moved):
                del left[pipe]  # type: ignore[arg-type]
            if isinstance(told, Trouble):
                yield told


def _cause(troubles: Sequence[Trouble]) -> Exception:
    """One that was killed, else the first: what the others say then is that they lost each other."""
    return min(troubles, key=lambda trouble: (not trouble.died, trouble.at)).error


def _dead(title: str, seat: Seat, code: int | None) -> TrainingError:
    how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
    return TrainingError(
        f"{title}: process {seat.rank + 1} of {seat.numerics.devices} {how}; if memory was short, set "
        "machine.accumulate to 2 or more, or lower machine.devices; the same command goes on from the last "
        "checkpoint"
    )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back; processes that are started meanwhile never get one."""
    resource_tracker.ensure_running()  # when it starts, it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
