"""Context of a run that must not change its results: machine, artifact store and console.

Every stage receives a :class:`RunContext` as the keyword ``ctx``, which is never part of a cache key.
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

from qexp.artifacts import BuildDir, Stage, Store
from qexp.artifacts.types import Artifact
from qexp.config import Machine

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


@dataclass(frozen=True)
class StageVisit:
    """One artifact that a run needed: built by it, or found in the store."""

    stage: str
    key: str
    state: Literal["built", "cached"]
    seconds: float


class RunListener(Protocol):
    """Observer of a run's progress; it cannot influence the run."""

    def found(self, key: str, source: str) -> None:
        """Handle the moment when rows and weights are loaded, and the run's key is therefore known.

        Args:
            key: Key of the run.
            source: Where the rows come from: ``local``, ``hub`` or ``sample``.
        """

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Handle the scores of a stage.

        Args:
            stage: ``fp32``, ``control``, ``ptq`` or ``qat``.
            scores: Percent by metric; None where a metric is undefined.
        """


class NullListener:
    """Listener that ignores every event."""

    def found(self, key: str, source: str) -> None:
        """Ignore the event."""

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Ignore the event."""


@dataclass
class RunConsole:
    """Messages and progress bars of a run, on standard error so that tables can be piped."""

    progress: bool = True
    prefix: str = ""
    """Prefix of every message, for runs that share a terminal."""
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    warnings: list[str] = field(default_factory=list)

    def info(self, message: str) -> None:
        """Print a message on one line."""
        self.console.print(f"{self.prefix}{message}", soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        """Print a warning, and keep it for the Record."""
        self.warnings.append(message)
        self.console.print(f"{self.prefix}warning: {message}", style="yellow", soft_wrap=True, markup=False)

    def waiting(self, stage: str) -> None:
        """Report that another process is building the artifact that this one needs."""
        self.info(f"{stage}: another process builds this; waiting for it")

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Callable[..., None]]:
        """Show a progress bar.

        Args:
            title: Text before the bar.
            total: Number of steps; None if it is not known.
            done: Steps that are done already.

        Yields:
            Function that advances the bar by ``n`` steps, 1 by default, and sets the note behind it.
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

            def advance(n: int = 1, note: str = "") -> None:
                progress.update(task, advance=n, note=note)

            yield advance


def _ignore(stage: str) -> None:
    """Ignore the name of a stage."""


@dataclass(frozen=True)
class RunContext:
    """Machine, artifact store and console of one process."""

    machine: Machine
    store: Store
    console: RunConsole
    share: int | None = None
    """CPU threads if ``machine.threads`` is null; None for all cores that the process may use."""
    entering: Callable[[str], None] = _ignore
    """Called with the name of every stage before its artifact is looked up or built."""
    visits: list[StageVisit] = field(default_factory=list)
    listener: RunListener = field(default_factory=NullListener)

    @classmethod
    def at(
        cls,
        outputs: Path,
        machine: Machine,
        *,
        threads: int | None = None,
        prefix: str = "",
        entering: Callable[[str], None] = _ignore,
    ) -> RunContext:
        """Create a context for one outputs folder."""
        console = RunConsole(progress=machine.progress, prefix=prefix)
        store = Store(outputs / "artifacts", console)
        return cls(machine, store, console, share=threads, entering=entering)

    @property
    def threads(self) -> int:
        """CPU threads for computing: as configured, else the share of this job, else all available cores."""
        return self.machine.threads or self.share or cores()

    @property
    def engines(self) -> Path:
        """Cache folder for engines that take long to build, next to the store."""
        return self.store.root.with_name("engines")

    def run_stage(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> A_co:
        """Return the artifact of a stage for these inputs, from the store or built now."""
        started = time.monotonic()
        self.entering(stage.name)
        inputs = stage.inputs(*args, **kwargs)
        key = stage.key(inputs)
        built = False
        if (artifact := self.store.find(stage, key, inputs)) is None:
            artifact, built = self.store.build(stage, key, inputs, self._runner(stage, *args, **kwargs))
        seconds = time.monotonic() - started
        self.visits.append(StageVisit(stage.name, key, "built" if built else "cached", round(seconds, 3)))
        self.console.info(
            f"  {stage.name:<13} {'built ' if built else 'cached'} {seconds:8.1f} s  {key[:12]}"
        )
        return artifact

    def _runner(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> Callable[[BuildDir], None]:
        def run(work: BuildDir) -> None:
            stage.run(work, self, *args, **kwargs)

        return run


def cores() -> int:
    """Return the number of CPU cores that this process may use.

    SLURM without core pinning leaves the affinity mask open, so its allocation is an upper limit.
    """
    allocated = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    available = len(os.sched_getaffinity(0))
    return min(available, int(allocated)) if allocated else available


def set_threads(threads: int) -> None:
    """Import torch, set its number of CPU threads, and make the C library keep freed memory."""
    import torch

    from qexp.quant.kernels.native import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def device_of(machine: Machine) -> Any:
    """Return the torch device to compute on.

    Raises:
        ConfigError: The machine asks for a GPU, and torch sees none.
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
    """Check before a training that each of its processes has a device.

    Raises:
        ConfigError: There are fewer GPUs than processes.
    """
    import torch

    from qexp.errors import ConfigError

    device_of(machine)
    if machine.accelerator == "gpu" and machine.devices > (gpus := torch.cuda.device_count()):
        raise ConfigError(
            f"machine.devices={machine.devices}: each process of a training needs its own GPU, and torch "
            f"sees {gpus} here; set machine.devices={gpus} or less, or machine.accumulate to save memory"
        )
