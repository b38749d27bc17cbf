"""All that must not change a result: the machine, the store, the screen.

A :class:`Runtime` is handed to every stage as the keyword ``rt`` and is never part of a key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from qexp.artifacts import Stage, Store, Workplace
from qexp.artifacts.types import Artifact
from qexp.config import Machine

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


@dataclass(frozen=True)
class Visit:
    """How a run came by one artifact."""

    stage: str
    key: str
    state: Literal["built", "cached"]
    seconds: float


class Follower(Protocol):
    """Who is told how a run goes on, and has no say in it."""

    def found(self, key: str, source: str) -> None:
        """Rows and weights are there, hence the run's key; the source of rows is ``local hub sample``."""

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """A stage (``fp32 control ptq qat``) has its scores: percent by metric."""


class Nobody:
    """No follower."""

    def found(self, key: str, source: str) -> None:
        """Nothing."""

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Nothing."""


@dataclass
class Screen:
    """What the user sees while a run goes on; on standard error, so that tables can be piped."""

    progress: bool = True
    prefix: str = ""
    """Before every line of news, where several runs write to one terminal."""
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    warnings: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        """One line of news."""
        self.console.print(f"{self.prefix}{message}", soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        """News that also goes into the Record."""
        self.warnings.append(message)
        self.console.print(f"{self.prefix}warning: {message}", style="yellow", soft_wrap=True, markup=False)

    def waiting(self, stage: str) -> None:
        """Another process builds what is needed."""
        self.say(f"{stage}: another process builds this; waiting for it")

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Callable[..., None]]:
        """A progress bar over ``total`` steps, None where nobody knows how many.

        The function that is handed out moves it by ``n=1``.
        """
        columns = (
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(
            *columns,
            console=self.console,
            disable=bool(self.prefix) or not (self.progress and self.console.is_terminal),
            transient=True,
        ) as progress:
            task = progress.add_task(title, total=total, completed=done, note="")

            def move(n: int = 1, note: str = "") -> None:
                progress.update(task, advance=n, note=note)

            yield move


def _nothing(stage: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Runtime:
    """The machine, the store and the screen of one process."""

    machine: Machine
    store: Store
    screen: Screen
    share: int | None = None
    """CPU threads where the machine's section leaves them open; null is all that the process may use."""
    entering: Callable[[str], None] = _nothing
    """Told of every stage before it is looked for or built."""
    visits: list[Visit] = field(default_factory=list)
    follower: Follower = field(default_factory=Nobody)

    @classmethod
    def at(
        cls, outputs: Path, machine: Machine, *, threads: int | None = None, prefix: str = "",
        entering: Callable[[str], None] = _nothing,
    ) -> Runtime:  # fmt: skip
        """A runtime over one outputs folder."""
        screen = Screen(progress=machine.progress, prefix=prefix)
        return cls(machine, Store(outputs / "artifacts", screen), screen, threads, entering)

    @property
    def threads(self) -> int:
        """CPU threads for computing: as configured, else this job's share, else all there are."""
        return self.machine.threads or self.share or cores()

    @property
    def engines(self) -> Path:
        """Folder of engines that take long to build, beside the store's."""
        return self.store.root.with_name("engines")

    def walk(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> A_co:
        """The artifact of a stage for these inputs: found in the store, or built now."""
        started = time.monotonic()
        self.entering(stage.name)
        inputs = stage.inputs(*args, **kwargs)
        key = stage.key(inputs)
        built = False
        if (artifact := self.store.find(stage, key, inputs)) is None:
            artifact, built = self.store.build(stage, key, inputs, self._runner(stage, *args, **kwargs))
        seconds = time.monotonic() - started
        self.visits.append(Visit(stage.name, key, "built" if built else "cached", round(seconds, 3)))
        self.screen.say(f"  {stage.name:<13} {'built ' if built else 'cached'} {seconds:8.1f} s  {key[:12]}")
        return artifact

    def _runner(
        self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[Workplace], None]:
        def run(work: Workplace) -> None:
            stage.run(work, *args, **kwargs)

        return run


def cores() -> int:
    """CPU cores that this process may use; in a SLURM job without pinning, those that it was given."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    there = len(os.sched_getaffinity(0))
    return min(there, int(given)) if given else there


def set_threads(threads: int) -> None:
    """Make the process ready to compute with that many threads; the first import of torch may be here."""
    import torch

    from qexp.quant.kernels.native import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def device_of(machine: Machine) -> Any:
    """The torch device to compute on.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    import torch

    from qexp.errors import ConfigError

    if machine.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "machine.accelerator=gpu: torch sees no CUDA device here; use machine=cpu, or install a "
            "CUDA build of torch"
        )
    return torch.device("cuda" if machine.accelerator == "gpu" else "cpu")


def check_devices(machine: Machine) -> None:
    """See, before a training, that there is a device for each of its processes.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    import torch

    from qexp.errors import ConfigError

    device_of(machine)
    if machine.accelerator == "gpu" and machine.devices > (there := torch.cuda.device_count()):
        raise ConfigError(
            f"machine.devices={machine.devices}: each process of a training needs its own GPU, and torch "
            f"sees {there} here; set machine.devices={there} or less, or machine.accumulate to save memory"
        )
