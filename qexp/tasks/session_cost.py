"""Memory and load time of an engine, measured in a process of its own that holds nothing else.

    python -m qexp.tasks.session_cost REQUEST < BATCH

A process that has loaded other models before would serve a new one out of memory that it already holds, so
that its growth is too small. The runtime's packages are imported before the measurement: memory is what the
engine adds to them. Only a search of translations, which is computed with torch, imports torch for other
runtimes than its own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from qexp.config import BeamSearch, Precision, RuntimeName
from qexp.deploy.engine import Batch, Engine, EngineSpec
from qexp.deploy.runtimes import load, module_of, return_freed_memory
from qexp.errors import DeployError
from qexp.records.schema import SessionCost

SECONDS = 300.0
"""Longest that a measurement may take."""
STATM = Path("/proc/self/statm")
"""Pages of this process: all, resident, and others; only Linux has the file."""
NO_RESIDENT_MEMORY = "resident memory is read from /proc/self/statm, which this system does not have"
RESULT = b"session cost: "
"""Beginning of the line with the result; runtimes may write lines of their own."""
LONGEST = 200
"""Most characters of a message of the process in a reason."""


@dataclass(frozen=True)
class SessionRequest:
    """Engine to measure."""

    runtime: RuntimeName
    precision: Precision
    threads: int
    graph: Path
    """ONNX file, or the folder of an exported translation."""
    search: BeamSearch | None = None
    """Search whose first answer is waited for; None for a model without a decoder."""

    def to_json(self) -> str:
        """Return the request as JSON text, which :meth:`from_json` reads."""
        search = None if self.search is None else self.search.model_dump(mode="json")
        return json.dumps({**vars(self), "graph": str(self.graph), "search": search})

    @classmethod
    def from_json(cls, text: str) -> SessionRequest:
        """Parse JSON text of :meth:`to_json`."""
        fields = json.loads(text)
        fields["graph"] = Path(fields["graph"])
        fields["search"] = fields["search"] and BeamSearch.model_validate(fields["search"])
        return cls(**fields)


def measure_session(request: SessionRequest, batch: Batch, *, seconds: float = SECONDS) -> SessionCost:
    """Load an engine in a new process, run one batch, and return what that cost.

    It never raises for an engine that cannot be measured: that costs the numbers, not the run.

    Args:
        request: Engine to measure.
        batch: Inputs of the first answer, integers [rows, tokens]; others than the engine's are left out.
        seconds: Longest that the process may run.
    """
    feed = io.BytesIO()
    np.savez(feed, **dict(batch))  # type: ignore[arg-type]
    command = [sys.executable, "-P", "-m", "qexp.tasks.session_cost", request.to_json()]
    path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    try:
        done = subprocess.run(
            command,
            input=feed.getvalue(),
            capture_output=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return without_cost(f"the process that measures it took more than {seconds:g} s")
    except OSError as error:
        return without_cost(f"no process to measure it in: {error.strerror or error}")
    if done.returncode:
        return without_cost(_ending(done.returncode, done.stderr))
    results = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if not results:
        return without_cost("the process that measures it ended without a result")
    return cast(SessionCost, json.loads(results[-1].removeprefix(RESULT)))


def without_cost(reason: str) -> SessionCost:
    """Return the entry of an engine that was not measured."""
    return {"memory_bytes": None, "load_seconds": None, "reason": reason}


def _ending(code: int, errors: bytes) -> str:
    """Return how the process ended, with the last line that it wrote."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return f"the process that measures it {how}{f': {lines[-1][:LONGEST]}' if lines else ''}"


def resident_bytes() -> int | None:
    """Return the resident memory of this process in bytes, or None where the system does not tell."""
    try:
        pages = int(STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def cost_of(request: SessionRequest, batch: Batch) -> SessionCost:
    """Load an engine in this process, run one batch, and return what that cost.

    Raises:
        DeployError: The runtime is not available, or refuses the graph or the batch.
    """
    loader = _loader(request)
    return_freed_memory()  # what imports left free would hide as much of the engine
    before, started = resident_bytes(), time.perf_counter()
    engine = loader()
    loaded = resident_bytes()
    engine.run({name: batch[name] for name in engine.inputs})
    seconds = time.perf_counter() - started
    if before is None or loaded is None:
        return {"memory_bytes": None, "load_seconds": seconds, "reason": NO_RESIDENT_MEMORY}
    return {"memory_bytes": max(0, loaded - before), "load_seconds": seconds}


def _loader(request: SessionRequest) -> Callable[[], Engine]:
    """Import all that an engine needs, and return the function that loads it."""
    import_module(module_of(request.runtime))

    def load_file(file: Path) -> Engine:
        return load(request.runtime, EngineSpec(file, request.precision, request.threads))

    if request.search is None:
        return lambda: load_file(request.graph)
    from qexp.tasks.engine_search import SearchEngine, load_translator

    search = request.search
    return lambda: SearchEngine(load_translator(request.graph, load_file), search)


def main(arguments: Sequence[str]) -> None:
    """Measure the engine of a request for the batch on standard input, and print the result as JSON."""
    with suppress(OSError):  # if memory runs out, the run is to outlive this process
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as arrays:
        batch: dict[str, Any] = dict(arrays)
    try:
        cost = cost_of(SessionRequest.from_json(arguments[0]), batch)
    except DeployError as error:
        sys.exit(str(error).splitlines()[0])
    print(RESULT.decode("ascii") + json.dumps(cost))


if __name__ == "__main__":
    main(sys.argv[1:])
