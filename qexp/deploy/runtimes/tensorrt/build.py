"""From a graph to an engine: what both runtimes do alike, given the module ``trt`` of one of them."""

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
from qexp.deploy.engine import Order
from qexp.errors import DeployError

WORST = 5
"""Messages of the runtime that an error quotes."""


@dataclass(frozen=True)
class Profile:
    """Shapes that one set of kernels is made for: from one token to ``largest``, fastest at the largest."""

    rows: int
    length: int

    def holds(self, rows: int, length: int) -> bool:
        """Whether a batch lies within."""
        return rows <= self.rows and length <= self.length


def profiles(order: Order, longest: int | None) -> tuple[Profile, ...]:
    """One profile for each shape of an order, the smallest first, and each from a single token on.

    Kernels are chosen at a profile's largest shape, so each measured shape gets its own; and batches of any
    other shape, such as the gate's, go to the smallest profile that holds them. Without shapes there is one,
    for 32 rows of up to 128 tokens.
    """
    shapes = order.shapes or ((32, min(128, longest or 128)),)
    return tuple(
        Profile(*shape) for shape in sorted(set(shapes), key=lambda shape: (shape[0] * shape[1], shape))
    )


def widest(found: tuple[Profile, ...]) -> Profile:
    """One profile that holds all."""
    return Profile(max(each.rows for each in found), max(each.length for each in found))


@dataclass(frozen=True)
class Target:
    """What an engine is built for; engines of one target can be exchanged."""

    runtime: str
    version: str
    device: str
    capability: str
    precision: Precision
    profiles: tuple[Profile, ...]

    def key(self, graph: bytes) -> str:
        """Name of the engine of a graph: changes with every byte of it and with each field."""
        shapes = [(each.rows, each.length) for each in self.profiles]
        parts = [self.runtime, self.version, self.device, self.capability, self.precision]
        return digest({"graph": hashlib.sha256(graph).hexdigest(), "target": parts, "shapes": shapes})

    @property
    def timings(self) -> str:
        """Name of the file of kernel timings, which all engines of one device and version share."""
        return f"{digest([self.runtime, self.version, self.device, self.capability])}.timings"


class Messages:
    """What a runtime has said since it was last asked."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def take(self) -> str:
        """The last errors, in its own words, and forget them."""
        lines, self.lines = self.lines[-WORST:], []
        return "; ".join(lines) or "no message"


@cache
def listening(trt: ModuleType) -> tuple[Any, Messages]:
    """A logger for a runtime, which keeps only the first that it is given, and what it hears."""
    messages = Messages()
    bad = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in bad:
                messages.lines.append(msg.strip())

    return Logger(), messages


def parsed(trt: ModuleType, builder: Any, flags: int, graph: bytes, order: Order) -> Any:
    """A network of a graph.

    Raises:
        DeployError: the parser refuses the graph; with all that it says.
    """
    logger, messages = listening(trt)
    messages.take()
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        words = "; ".join(str(error).strip() for error in errors) or messages.take()
        raise DeployError(f"{order.graph}: the ONNX parser refuses the graph: {words}; export it again")
    messages.take()
    return network


def add_profile(builder: Any, config: Any, network: Any, largest: Profile) -> None:
    """Tell a build the shapes of the inputs, which are [batch, length] or [batch, length, width]."""
    profile = builder.create_optimization_profile()
    best = (largest.rows, largest.length)
    for index in range(network.num_inputs):
        value = network.get_input(index)
        rest = tuple(value.shape)[2:]
        profile.set_shape(value.name, (1, 1, *rest), (*best, *rest), (*best, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise DeployError(f"profile 1x1 to {best[0]}x{best[1]}: the runtime refuses it; give other shapes")


def built(trt: ModuleType, builder: Any, network: Any, config: Any, order: Order) -> bytes:
    """The engine.

    Raises:
        DeployError: the runtime finds no way to compute the network; with what it says.
    """
    _, messages = listening(trt)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise DeployError(
            f"{order.graph}: {trt.__name__} {trt.__version__} cannot build it: {messages.take()}; "
            "try another placement, or fewer rows and tokens"
        )
    return bytes(engine)


def timings(config: Any, folder: Path | None, target: Target) -> Any:
    """Begin with the timings of kernels that earlier builds have kept."""
    file = folder / target.timings if folder is not None else None
    known = file.read_bytes() if file is not None and file.exists() else b""
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def graph_file(model: ModelProto, order: Order, key: str) -> Path:
    """Where the rewritten graph is, for the runtime's own tools; the given one where nothing is kept."""
    if order.cache is None:
        return order.graph
    path = order.cache / f"{key}.onnx"
    write_whole(path, model.SerializeToString(deterministic=True))
    return path


def shape_words(model: ModelProto, found: tuple[Profile, ...], flag: str = "--{}Shapes") -> list[str]:
    """Words of NVIDIA's command lines for profiles."""
    names = [value.name for value in model.graph.input]
    words = []
    for index, each in enumerate(found):
        if len(found) > 1:
            words.append(f"--profile={index}")
        sizes = {"min": (1, 1), "opt": (each.rows, each.length), "max": (each.rows, each.length)}
        for edge, (rows, length) in sizes.items():
            words.append(f"{flag.format(edge)}=" + ",".join(f"{name}:{rows}x{length}" for name in names))
    return words
