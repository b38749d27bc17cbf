"""TensorRT for RTX: engines are built anywhere, ahead of time, and run on an RTX GPU.

A build names compute capabilities, not a device, and picks no kernels: those are compiled on the device
for the shapes that come. So one profile holds all shapes here, and no timings are kept. The network is
strongly typed, as that of TensorRT from version 10 on (:mod:`qexp.deploy.runtimes.tensorrt.engine`).
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from onnx import ModelProto

from qexp.artifacts.disk import write_whole
from qexp.deploy.engine import Info, Order, not_installed
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.runtimes.tensorrt import build as making
from qexp.deploy.runtimes.tensorrt.execution import DeviceEngine, Execution
from qexp.deploy.runtimes.tensorrt.rewrite import prepared
from qexp.errors import DeployError

AHEAD = "ahead-of-time"
"""What stands for a device where an engine is built for capabilities."""


@dataclass(frozen=True)
class Built:
    """An engine that was built without a device."""

    plan: bytes
    """The serialized engine."""
    path: Path | None
    """Where it is kept; None without a cache."""
    layers: tuple[str, ...]
    """Kind and name of each layer that the parser made of the graph; what they are fused into, only a device
    tells."""
    capabilities: tuple[str, ...]
    """Compute capabilities that it runs on, such as ``8.9``."""
    seconds: float
    """Time from the graph to the engine; of one that was kept, the time to parse and load it."""
    command: str
    """The line for the runtime's own tool that builds the same."""
    version: str
    """Of the runtime; an engine runs on the same."""

    @property
    def kinds(self) -> dict[str, int]:
        """Layers by kind."""
        return dict(Counter(layer.split()[0] for layer in self.layers))


class RtxEngine(DeviceEngine):
    """An engine on this machine's GPU."""

    def __init__(self, order: Order) -> None:
        """Build an engine for this GPU, or load the one that was kept.

        Raises:
            DeployError: TensorRT for RTX is not installed, there is no device or one that it does not know,
                or the graph is missing, damaged, or of a form that it does not take.
        """
        trt = _tensorrt_rtx()
        if not torch.cuda.is_available():
            raise DeployError(
                f"tensorrt_rtx {trt.__version__} is here, and torch {torch.__version__} sees no NVIDIA GPU; "
                "build engines here with qexp build, and run them where one is "
                "(pip install 'qexp[tensorrt_rtx]')"
            )
        capability = ".".join(str(each) for each in torch.cuda.get_device_capability())
        made = build(order, (capability,))
        engine = trt.Runtime(making.listening(trt)[0]).deserialize_cuda_engine(made.plan)
        if engine is None:
            raise DeployError(
                f"{order.graph}: TensorRT for RTX cannot load its engine: {making.listening(trt)[1].take()}"
            )
        model = prepared("tensorrt_rtx", order)
        wide = making.widest(making.profiles(order, limits(model).length))
        execution = Execution(trt, engine, (wide,), set(order.shapes))
        info = Info(
            "tensorrt_rtx", str(trt.__version__), torch.cuda.get_device_name(), order.precision,
            len(made.plan), made.seconds, made.command, int(engine.device_memory_size_v2),
        )  # fmt: skip
        super().__init__(execution, model, info)


def load(order: Order) -> RtxEngine:
    """An engine for an exported file.

    Raises:
        DeployError: as ``RtxEngine``.
    """
    return RtxEngine(order)


def build(order: Order, capabilities: tuple[str, ...] | None = None) -> Built:
    """Build an engine; this needs no device.

    Args:
        order: The graph, its precision, its shapes, and where engines are kept.
        capabilities: Compute capabilities to build for, such as ``8.9``; None is all that the version knows.

    Raises:
        DeployError: TensorRT for RTX is not installed, a capability is none of its own, or the graph is
            missing, damaged, or of a form that it does not take.
    """
    started = time.perf_counter()
    trt = _tensorrt_rtx()
    chosen = capabilities or tuple(known_capabilities(trt))
    _check_capabilities(trt, chosen)
    model = prepared("tensorrt_rtx", order)
    wide = making.widest(making.profiles(order, limits(model).length))
    target = making.Target(
        "tensorrt_rtx", str(trt.__version__), AHEAD, ",".join(chosen), order.precision, (wide,)
    )
    graph = model.SerializeToString(deterministic=True)
    key = target.key(graph)
    path = order.cache / f"{key}.engine" if order.cache is not None else None
    plan, layers = _plan(trt, order, graph, target, path)
    command = _command(making.graph_file(model, order, key), model, target)
    seconds = time.perf_counter() - started
    return Built(plan, path, layers, chosen, seconds, command, str(trt.__version__))


def known_capabilities(trt: ModuleType) -> dict[str, str]:
    """Names of the runtime's constants by compute capability: ``{"8.9": "SM89", ...}``."""
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return {f"{name[2:-1]}.{name[-1]}": name for name in sorted(names, key=lambda name: int(name[2:]))}


def _tensorrt_rtx() -> ModuleType:
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        raise not_installed("tensorrt_rtx", "tensorrt_rtx") from error
    module: ModuleType = tensorrt_rtx
    return module


def _check_capabilities(trt: ModuleType, chosen: tuple[str, ...]) -> None:
    known = known_capabilities(trt)
    unknown = [each for each in chosen if each not in known]
    if unknown:
        raise DeployError(
            f"compute capability {', '.join(unknown)} is none of TensorRT for RTX {trt.__version__}; "
            f"allowed are {', '.join(known)}; take tensorrt or torch_int8 on other GPUs"
        )


def _plan(
    trt: ModuleType, order: Order, graph: bytes, target: making.Target, path: Path | None
) -> tuple[bytes, tuple[str, ...]]:
    logger, _ = making.listening(trt)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = making.parsed(trt, builder, typed, graph, order)
    found = [network.get_layer(index) for index in range(network.num_layers)]
    layers = tuple(f"{layer.type.name} {layer.name}" for layer in found)
    if path is not None and path.exists():
        return path.read_bytes(), layers
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    names, chosen = known_capabilities(trt), target.capability.split(",")
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        config.set_compute_capability(trt.ComputeCapability.__members__[names[capability]], index)
    making.add_profile(builder, config, network, target.profiles[0])
    plan = making.built(trt, builder, network, config, order)
    if path is not None:
        write_whole(path, plan)
    return plan, layers


def _command(graph: Path, model: ModelProto, target: making.Target) -> str:
    """The line for the tool ``tensorrt_rtx`` of NVIDIA's archive that builds the same."""
    capabilities = ",".join(each.replace(".", "") for each in target.capability.split(","))
    words = ["tensorrt_rtx", f"--onnx={graph}", f"--computeCapabilities={capabilities}"]
    return " ".join([*words, *making.shape_words(model, target.profiles), "--profilingVerbosity=detailed"])
