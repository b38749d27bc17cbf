"""Benchmark of several engines on the same batches, in alternation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from qexp.artifacts.lease import claimed_if_free
from qexp.deploy.energy import Meter, joules, meters
from qexp.deploy.engine import Batch, Engine
from qexp.deploy.timing import TimingEffort, measure_alternating
from qexp.errors import DeployError


@dataclass
class EngineBenchmark:
    """Benchmark of several engines, with its results by engine and shape."""

    engines: Mapping[str, Engine]
    effort: TimingEffort
    """Limits on the timed calls of each engine for a shape."""
    known: tuple[Meter, ...] = field(default_factory=meters)
    latency: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """By engine and shape: quantiles in milliseconds, rows per second, runs, target tokens per second of a
    search, and joules per row where the machine has an energy counter."""
    problems: dict[str, dict[str, str]] = field(default_factory=dict)
    """By engine: the first line of the error for each refused shape, and for ``audit`` if auditing failed."""

    def measure(self, shape: str, batches: Sequence[Batch], advance: Callable[..., None]) -> None:
        """Time every engine on the batches in alternation, cycling through the batches.

        Args:
            shape: Name of the shape, such as ``32x128``.
            batches: At least one; all have the same number of rows.
            advance: Progress callback, called after each call of an engine.
        """
        calls = {
            name: _calls(engine, batches, advance)
            for name, engine in self.engines.items()
            if self._takes(name, shape, batches)
        }
        if not calls:
            return
        rows = len(next(iter(batches[0].values())))
        stats = measure_alternating(calls, replace(self.effort, batches=len(batches)), rows=rows)
        for name, times in stats.items():
            metrics = asdict(times)
            if (tokens := getattr(self.engines[name], "tokens_per_sentence", None)) is not None:
                metrics["tokens_per_second"] = tokens * times.samples_per_second
            if self.known:
                metrics["joules_per_row"] = joules(calls[name], self.known) / rows
            self.latency.setdefault(name, {})[shape] = metrics

    def _takes(self, name: str, shape: str, batches: Sequence[Batch]) -> bool:
        """Return whether an engine runs the largest batch; if not, record its error in ``problems``."""
        try:
            largest = max(batches, key=lambda batch: next(iter(batch.values())).size)
            engine = self.engines[name]
            engine.run({name: largest[name] for name in engine.inputs})
        except DeployError as error:
            self.problems.setdefault(name, {})[shape] = str(error).splitlines()[0]
            return False
        return True


def _calls(engine: Engine, batches: Sequence[Batch], advance: Callable[..., None]) -> Callable[[], Any]:
    """Return a function that runs an engine on the next batch, in a cycle, with the inputs it has."""
    feeds = cycle([{name: batch[name] for name in engine.inputs} for batch in batches])

    def call() -> None:
        engine.run(next(feeds))
        advance()

    return call


@contextmanager
def pinned(threads: int, warn: Callable[[str], None], claims: Path | None = None) -> Iterator[None]:
    """Pin this process, and the threads that it starts meanwhile, to as many cores as it computes with.

    Cores that another benchmark of this machine is pinned to are passed over while there are others. Does
    nothing where the operating system has no CPU affinity, such as macOS.

    Args:
        threads: Number of threads that compute.
        warn: Called with a sentence if other benchmarks hold so many cores that some are shared.
        claims: Folder of the claims on cores, which all benchmarks of the machine share; None for the
            system's temporary folder.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    folder = claims or Path(tempfile.gettempdir()) / f"qexp-cores-{os.getuid()}"
    with ExitStack() as held:
        free = _claimed_cores(cores, threads, folder, held)
        if len(free) < min(threads, len(cores)):
            warn(
                f"latency: other benchmarks time on this machine, and of {threads} cores {len(free)} are "
                "free; time it alone with qexp bench RUN"
            )
        shared = [core for core in cores if core not in free]
        os.sched_setaffinity(0, [*free, *shared][:threads])
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _claimed_cores(cores: Sequence[int], threads: int, folder: Path, held: ExitStack) -> list[int]:
    """Return the first cores that no other benchmark has, at most ``threads``, and claim them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free: list[int] = []
        for core in cores:
            if len(free) < threads and held.enter_context(claimed_if_free(folder / f"{core}.lease")):
                free.append(core)
    except OSError:  # a full or read-only temporary folder: benchmarks cannot know of each other
        return list(cores[:threads])
    return free
