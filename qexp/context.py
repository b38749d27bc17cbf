"""Context of a run that must not change its results: machine, artifact store and console.

Every stage receives a :class:`RunContext` as the keyword ``ctx``, which is never part of a cache key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeVar

from qexp.artifacts import BuildDir, Stage, Store
from qexp.artifacts.manifest import read_manifest
from qexp.artifacts.types import Artifact
from qexp.config import Machine
from qexp.progress.console import RunConsole

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


@dataclass(frozen=True)
class StageVisit:
    """One artifact that a run needed: built by it, or found in the store."""

    stage: str
    key: str
    state: Literal["built", "cached"]
    seconds: float
    """Seconds that its build took, also where an earlier run built it."""


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
    part: str = ""
    """Model or engine that the next stages work on, for messages."""

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
        key, title, built = stage.key(inputs), f"{stage.name} {self.part}".rstrip(), False
        with self.console.stage(title, key):
            if (artifact := self.store.find(stage, key, inputs)) is None:
                self.console.starts(title)
                artifact, built = self.store.build(stage, key, inputs, self._runner(stage, *args, **kwargs))
            seconds = time.monotonic() - started
            if not built and (earlier := read_manifest(artifact.folder).seconds) is not None:
                seconds = earlier
            self.visits.append(StageVisit(stage.name, key, "built" if built else "cached", round(seconds, 3)))
            took = f"built  {seconds:8.1f} s " if built else f"cached {f'({seconds:.1f} s)':>10} "
            self.console.info(f"  {self.console.activity.number}{title:<26} {took} {key[:12]}")
        return artifact

    def on(self, part: str) -> Self:
        """Return the context for stages that work on a model or an engine, which messages name."""
        return replace(self, part=part)

    def _runner(self, stage: Stage[P, A_co], *args: P.args, **kwargs: P.kwargs) -> Callable[[BuildDir], None]:
        def run(work: BuildDir) -> None:
            stage.run(work, self, *args, **kwargs)

        return run


def cores() -> int:
    """Return the number of CPU cores that this process may use.

    SLURM without core pinning leaves the affinity mask open, and so does a container with a CPU quota; both
    are upper limits. An operating system without affinity, such as macOS, lends all cores.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    limits = [len(affinity(0)) if affinity else os.cpu_count() or 1]
    if allocated := os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE"):
        limits.append(int(allocated))
    if (quota := cpu_quota(CONTROL_GROUPS)) is not None:
        limits.append(max(1, int(quota)))
    return min(limits)


CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts control groups, within a container those of the container."""


def cpu_quota(folder: Path) -> float | None:
    """Return how many cores' time a container may use; None without a limit.

    Control groups of version 2 have ``cpu.max`` with quota and period in microseconds, ``max`` for none, and
    those of version 1 a file for each (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((folder / "cpu" / name).read_text(encoding="utf-8") for name in names)
        except OSError:
            return None
    return int(quota) / int(period) if quota.strip().isdecimal() and int(period) > 0 else None


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
