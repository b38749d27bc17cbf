"""Engine of TensorRT for RTX, which is built anywhere, ahead of time, and runs on an RTX GPU.

A build is for compute capabilities, not for a device, and selects no kernels: these are compiled on the
device for the shapes of its batches. So one profile covers all shapes, and no timings are cached. The
network is strongly typed, as in TensorRT from version 10 on (:mod:`qexp.deploy.runtimes.tensorrt.engine`).
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
from qexp.deploy.engine import EngineSpec, Info, not_installed
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.runtimes.tensorrt import build as making
from qexp.deploy.runtimes.tensorrt.execution import DeviceEngine, Execution
from qexp.deploy.runtimes.tensorrt.rewrite import prepared
from qexp.errors import DeployError

AHEAD = "ahead-of-time"
"""Device name of engines that are built for capabilities instead of a device."""


@dataclass(frozen=True)
class BuiltEngine:
    """Engine that was built without a device."""

    plan: bytes
    """Serialized engine."""
    path: Path | None
    """File in the cache; None without a cache."""
    layers: tuple[str, ...]
    """Kind and name of each layer from the parser; their fusion is known only on a device."""
    capabilities: tuple[str, ...]
    """Compute capabilities that the engine runs on, such as ``8.9``."""
    seconds: float
    """Time from the graph to the engine; for a cached engine, the time to parse the graph and load it."""
    command: str
    """Command of the runtime's own tool that builds the same engine."""
    version: str
    """Version of the runtime; an engine runs only on the same version."""

    @property
    def kinds(self) -> dict[str, int]:
        """Number of layers by kind."""
        return dict(Counter(layer.split()[0] for layer in self.layers))


class RtxEngine(DeviceEngine):
    """TensorRT for RTX engine on the GPU of this machine."""

    def __init__(self, spec: EngineSpec) -> None:
        """Build an engine for this GPU, or load it from the cache.

        Raises:
            DeployError: TensorRT for RTX is not installed, there is no device or an unsupported one,
                or the graph is missing, damaged, or of a form that TensorRT for RTX does not take.
        """
        trt = _tensorrt_rtx()
        if not torch.cuda.is_available():
            raise DeployError(
                f"tensorrt_rtx {trt.__version__} is here, and torch {torch.__version__} sees no NVIDIA GPU; "
                "build engines here with qexp build, and run them where one is "
                "(pip install 'qexp[tensorrt_rtx]')"
            )
        capability = ".".join(str(each) for each in torch.cuda.get_device_capability())
        built = build(spec, (capability,))
        engine = trt.Runtime(making.make_logger(trt)[0]).deserialize_cuda_engine(built.plan)
        if engine is None:
            raise DeployError(
                f"{spec.graph}: TensorRT for RTX cannot load its engine: {making.make_logger(trt)[1].take()}"
            )
        model = prepared("tensorrt_rtx", spec)
        wide = making.widest(making.profiles(spec, limits(model).length))
        execution = Execution(trt, engine, (wide,), set(spec.shapes))
        info = Info(
            "tensorrt_rtx",
            str(trt.__version__),
            device=torch.cuda.get_device_name(),
            precision=spec.precision,
            bytes=len(built.plan),
            build_seconds=built.seconds,
            command=built.command,
            memory_bytes=int(engine.device_memory_size_v2),
        )
        super().__init__(execution, model, info)


def load(spec: EngineSpec) -> RtxEngine:
    """Build or load the engine of an exported file for this GPU.

    Raises:
        DeployError: As in ``RtxEngine``.
    """
    return RtxEngine(spec)


def build(spec: EngineSpec, capabilities: tuple[str, ...] | None = None) -> BuiltEngine:
    """Build an engine or load it from the cache, which needs no device.

    Args:
        spec: Graph, precision, shapes, and cache folder.
        capabilities: Compute capabilities to build for, such as ``8.9``; None means all that are supported.

    Raises:
        DeployError: TensorRT for RTX is not installed, does not support a capability, or the graph is
            missing, damaged, or of a form that TensorRT for RTX does not take.
    """
    started = time.perf_counter()
    trt = _tensorrt_rtx()
    chosen = capabilities or tuple(known_capabilities(trt))
    _check_capabilities(trt, chosen)
    model = prepared("tensorrt_rtx", spec)
    wide = making.widest(making.profiles(spec, limits(model).length))
    target = making.Target(
        "tensorrt_rtx",
        str(trt.__version__),
        device=AHEAD,
        capability=",".join(chosen),
        precision=spec.precision,
        profiles=(wide,),
    )
    graph = model.SerializeToString(deterministic=True)
    key = target.key(graph)
    path = spec.cache / f"{key}.engine" if spec.cache is not None else None
    plan, layers = _plan(trt, spec, graph=graph, target=target, path=path)
    command = _command(making.graph_file(model, spec, key), model, target)
    seconds = time.perf_counter() - started
    return BuiltEngine(
        plan,
        path,
        layers=layers,
        capabilities=chosen,
        seconds=seconds,
        command=command,
        version=str(trt.__version__),
    )


def known_capabilities(trt: ModuleType) -> dict[str, str]:
    """Return the names of the runtime's constants by compute capability: ``{"8.9": "SM89", ...}``."""
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
    trt: ModuleType, spec: EngineSpec, graph: bytes, target: making.Target, path: Path | None
) -> tuple[bytes, tuple[str, ...]]:
    logger, _ = making.make_logger(trt)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = making.parsed(trt, builder, flags=typed, graph=graph, spec=spec)
    parsed_layers = [network.get_layer(index) for index in range(network.num_layers)]
    layers = tuple(f"{layer.type.name} {layer.name}" for layer in parsed_layers)
    if path is not None and path.exists():
        return path.read_bytes(), layers
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    names, chosen = known_capabilities(trt), target.capability.split(",")
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        config.set_compute_capability(trt.ComputeCapability.__members__[names[capability]], index)
    making.add_profile(builder, config, network, target.profiles[0])
    plan = making.built(trt, builder, network=network, config=config, spec=spec)
    if path is not None:
        write_whole(path, plan)
    return plan, layers


def _command(graph: Path, model: ModelProto, target: making.Target) -> str:
    """Return the command of ``tensorrt_rtx``, a tool in NVIDIA's archive, that builds the same engine."""
    capabilities = ",".join(each.replace(".", "") for each in target.capability.split(","))
    arguments = ["tensorrt_rtx", f"--onnx={graph}", f"--computeCapabilities={capabilities}"]
    return " ".join(
        [*arguments, *making.shape_words(model, target.profiles), "--profilingVerbosity=detailed"]
    )
