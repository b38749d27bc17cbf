"""Build steps shared by both runtimes, which take the module ``trt`` of one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from onnx import ModelProto

from qexp.artifacts import digest
from qexp.artifacts.disk import write_whole
from qexp.config import Precision
from qexp.deploy.engine import EngineSpec
from qexp.errors import DeployError

WORST = 5
"""Number of messages of the runtime that an error quotes."""


@dataclass(frozen=True)
class Profile:
    """Shapes that one set of kernels covers, from one token to ``rows`` x ``length``, where it is fastest."""

    rows: int
    length: int

    def holds(self, rows: int, length: int) -> bool:
        """Return whether the profile covers a batch."""
        return rows <= self.rows and length <= self.length


def profiles(spec: EngineSpec, longest: int | None) -> tuple[Profile, ...]:
    """Return one profile for each shape of a spec, the smallest first, each starting at a single token.

    Kernels are selected for a profile's largest shape, so each measured shape gets its own profile. Batches
    of any other shape, such as the gate's, use the smallest profile that covers them. Without shapes there is
    one profile, for 32 rows of up to 128 tokens.
    """
    shapes = spec.shapes or ((32, min(128, longest or 128)),)
    return tuple(
        Profile(*shape) for shape in sorted(set(shapes), key=lambda shape: (shape[0] * shape[1], shape))
    )


def widest(found: tuple[Profile, ...]) -> Profile:
    """Return the smallest profile that covers all given ones."""
    return Profile(max(each.rows for each in found), max(each.length for each in found))


@dataclass(frozen=True)
class Target:
    """Target of a build; engines of equal targets are interchangeable."""

    runtime: str
    version: str
    device: str
    capability: str
    precision: Precision
    profiles: tuple[Profile, ...]

    def key(self, graph: bytes) -> str:
        """Return the cache key of a graph's engine, from every byte of the graph and each field."""
        shapes = [(each.rows, each.length) for each in self.profiles]
        parts = [self.runtime, self.version, self.device, self.capability, self.precision]
        return digest({"graph": hashlib.sha256(graph).hexdigest(), "target": parts, "shapes": shapes})

    @property
    def timings(self) -> str:
        """Name of the file of kernel timings, shared by all engines of one device and version."""
        return f"{digest([self.runtime, self.version, self.device, self.capability])}.timings"


class ErrorLog:
    """Error messages of a runtime since they were last taken."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def take(self) -> str:
        """Return the last messages, joined, and clear them all."""
        lines, self.lines = self.lines[-WORST:], []
        return "; ".join(lines) or "no message"


@cache
def make_logger(trt: ModuleType) -> tuple[Any, ErrorLog]:
    """Create the logger of a runtime and the log of its errors.

    Cached, since a runtime uses only the first logger that it gets.
    """
    messages = ErrorLog()
    bad = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in bad:
                messages.lines.append(msg.strip())

    return Logger(), messages


def parsed(trt: ModuleType, builder: Any, flags: int, graph: bytes, spec: EngineSpec) -> Any:
    """Parse a graph into a network.

    Raises:
        DeployError: The parser refuses the graph; the message quotes all of its errors.
    """
    logger, messages = make_logger(trt)
    messages.take()
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reason = "; ".join(str(error).strip() for error in errors) or messages.take()
        raise DeployError(f"{spec.graph}: the ONNX parser refuses the graph: {reason}; export it again")
    messages.take()
    return network


def add_profile(builder: Any, config: Any, network: Any, largest: Profile) -> None:
    """Add a profile of the input shapes to a build; inputs are [batch, length] or [batch, length, width].

    Raises:
        DeployError: The runtime refuses the profile.
    """
    profile = builder.create_optimization_profile()
    best = (largest.rows, largest.length)
    for index in range(network.num_inputs):
        value = network.get_input(index)
        rest = tuple(value.shape)[2:]
        profile.set_shape(value.name, (1, 1, *rest), (*best, *rest), (*best, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise DeployError(f"profile 1x1 to {best[0]}x{best[1]}: the runtime refuses it; give other shapes")


def built(trt: ModuleType, builder: Any, network: Any, config: Any, spec: EngineSpec) -> bytes:
    """Build and serialize an engine.

    Raises:
        DeployError: The runtime cannot build the network; the message quotes its errors.
    """
    _, messages = make_logger(trt)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise DeployError(
            f"{spec.graph}: {trt.__name__} {trt.__version__} cannot build it: {messages.take()}; "
            "try another placement, or fewer rows and tokens"
        )
    return bytes(engine)


def timings(config: Any, folder: Path | None, target: Target) -> Any:
    """Set and return the timing cache of a build, filled with kernel timings of earlier builds."""
    file = folder / target.timings if folder is not None else None
    content = file.read_bytes() if file is not None and file.exists() else b""
    cache = config.create_timing_cache(content)
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def graph_file(model: ModelProto, spec: EngineSpec, key: str) -> Path:
    """Write the rewritten graph to the cache for the runtime's own tools, and return its path.

    Without a cache the path of the original graph is returned.
    """
    if spec.cache is None:
        return spec.graph
    path = spec.cache / f"{key}.onnx"
    write_whole(path, model.SerializeToString(deterministic=True))
    return path


def shape_words(model: ModelProto, found: tuple[Profile, ...], flag: str = "--{}Shapes") -> list[str]:
    """Return the command-line arguments of NVIDIA's tools for profiles."""
    names = [value.name for value in model.graph.input]
    arguments = []
    for index, each in enumerate(found):
        if len(found) > 1:
            arguments.append(f"--profile={index}")
        sizes = {"min": (1, 1), "opt": (each.rows, each.length), "max": (each.rows, each.length)}
        for edge, (rows, length) in sizes.items():
            arguments.append(f"{flag.format(edge)}=" + ",".join(f"{name}:{rows}x{length}" for name in names))
    return arguments
