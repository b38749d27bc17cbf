"""Several engines on the same batches, in turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from typing import Any

from qexp.deploy.energy import Meter, joules, meters
from qexp.deploy.engine import Batch, Engine
from qexp.deploy.timing import Effort, measure_alternating
from qexp.errors import DeployError


@dataclass
class Bench:
    """Engines by name, and what was found of them by shape."""

    engines: Mapping[str, Engine]
    effort: Effort
    """How often each engine is timed on a shape."""
    known: tuple[Meter, ...] = field(default_factory=meters)
    latency: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Quantiles in milliseconds, rows per second, runs, and joules for a row where the machine tells them."""
    problems: dict[str, dict[str, str]] = field(default_factory=dict)
    """Shapes that an engine refused, with its first line; and ``audit`` where it cannot tell of its work."""

    def measure(self, shape: str, batches: Sequence[Batch], move: Callable[..., None]) -> None:
        """Time every engine on the batches, one after another and again from the first, in turns.

        Args:
            shape: Name of the shape, such as ``32x128``.
            batches: At least one; all have the same number of rows.
            move: Told of each call.
        """
        calls = {
            name: _calls(engine, batches, move)
            for name, engine in self.engines.items()
            if self._takes(name, shape, batches)
        }
        if not calls:
            return
        rows = len(next(iter(batches[0].values())))
        timed = measure_alternating(calls, replace(self.effort, batches=len(batches)), rows=rows)
        for name, times in timed.items():
            found = asdict(times)
            if self.known:
                found["joules_per_row"] = joules(calls[name], self.known) / rows
            self.latency.setdefault(name, {})[shape] = found

    def _takes(self, name: str, shape: str, batches: Sequence[Batch]) -> bool:
        """Whether an engine computes the largest of the batches at all."""
        try:
            largest = max(batches, key=lambda batch: next(iter(batch.values())).size)
            engine = self.engines[name]
            engine.run({name: largest[name] for name in engine.inputs})
        except DeployError as error:
            self.problems.setdefault(name, {})[shape] = str(error).splitlines()[0]
            return False
        return True


def _calls(engine: Engine, batches: Sequence[Batch], move: Callable[..., None]) -> Callable[[], Any]:
    """One call after another on the batches in turn, each with what this engine takes of them."""
    taken = cycle([{name: batch[name] for name in engine.inputs} for batch in batches])

    def call() -> None:
        engine.run(next(taken))
        move()

    return call


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this process, and the threads that it starts meanwhile, on as many cores as it computes with."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
