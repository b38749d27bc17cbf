"""Engine of TensorRT 8.6, 10 and 11 on an NVIDIA GPU.

From version 10 on the network is strongly typed: the types of the graph decide the arithmetic. So the graph
is rewritten to 16 bits where the spec asks for it (:mod:`qexp.deploy.runtimes.tensorrt.half_precision`), and
values between QuantizeLinear and DequantizeLinear are int8. Version 8.6 has no such networks: there flags
allow INT8 and FP16, and TensorRT chooses. Calibrators, dynamic ranges and precision flags, which version 11
removed, are not used. API that exists in one version only is used in functions that end in ``_8`` or
``_10``.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from onnx import ModelProto

from qexp.artifacts.disk import write_whole
from qexp.deploy.engine import EngineSpec, Info, not_installed
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.runtimes.tensorrt import build as making
from qexp.deploy.runtimes.tensorrt.execution import DeviceEngine, Execution
from qexp.deploy.runtimes.tensorrt.rewrite import prepared
from qexp.errors import DeployError

TYPED = 10
"""First major version with strongly typed networks."""


class TensorRTEngine(DeviceEngine):
    """TensorRT engine on the GPU of this machine."""

    def __init__(self, spec: EngineSpec) -> None:
        """Build an engine, or load it from the cache.

        Raises:
            DeployError: TensorRT is not installed, there is no device, or the graph is missing, damaged,
                or of a form that TensorRT does not take.
        """
        started = time.perf_counter()
        trt = _tensorrt()
        if not torch.cuda.is_available():
            raise DeployError(
                f"tensorrt {trt.__version__} is here, and torch {torch.__version__} sees no NVIDIA GPU; run "
                "where one is, with pip install 'qexp[tensorrt]', or take openvino or onnxruntime"
            )
        major = _major(trt)
        model = prepared("tensorrt", spec, typed=major >= TYPED)
        profiles = making.profiles(spec, limits(model).length)
        plan, key, target = _plan(trt, spec, model, profiles)
        engine = trt.Runtime(making.make_logger(trt)[0]).deserialize_cuda_engine(plan)
        if engine is None:
            raise DeployError(
                f"{spec.graph}: TensorRT cannot load its engine: {making.make_logger(trt)[1].take()}"
            )
        execution = Execution(trt, engine, profiles, set(spec.shapes))
        command = _command(making.graph_file(model, spec, key), model, spec, target)
        memory = _device_bytes_8(engine) if major < TYPED else _device_bytes_10(engine)
        info = Info(
            "tensorrt",
            str(trt.__version__),
            device=target.device,
            precision=spec.precision,
            bytes=len(plan),
            build_seconds=time.perf_counter() - started,
            command=command,
            memory_bytes=memory,
        )
        super().__init__(execution, model, info)


def load(spec: EngineSpec) -> TensorRTEngine:
    """Build or load the engine of an exported file.

    Raises:
        DeployError: As in ``TensorRTEngine``.
    """
    return TensorRTEngine(spec)


def _tensorrt() -> ModuleType:
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # its own libraries, or those of CUDA, may be missing
        raise not_installed("tensorrt", "tensorrt") from error
    module: ModuleType = tensorrt
    return module


def _major(trt: ModuleType) -> int:
    return int(str(trt.__version__).split(".")[0])


def _plan(
    trt: ModuleType, spec: EngineSpec, model: ModelProto, found: tuple[making.Profile, ...]
) -> tuple[bytes, str, making.Target]:
    """Return the serialized engine, its cache key, and the target that it is built for."""
    capability = ".".join(str(each) for each in torch.cuda.get_device_capability())
    target = making.Target(
        "tensorrt",
        str(trt.__version__),
        device=torch.cuda.get_device_name(),
        capability=capability,
        precision=spec.precision,
        profiles=found,
    )
    graph = model.SerializeToString(deterministic=True)
    key = target.key(graph)
    file = spec.cache / f"{key}.engine" if spec.cache is not None else None
    if file is not None and file.exists():
        return file.read_bytes(), key, target
    plan = _built(trt, spec, graph, target)
    if file is not None:
        write_whole(file, plan)
    return plan, key, target


def _built(trt: ModuleType, spec: EngineSpec, graph: bytes, target: making.Target) -> bytes:
    logger, _ = making.make_logger(trt)
    builder = trt.Builder(logger)
    typed = _major(trt) >= TYPED
    network = making.parsed(
        trt, builder, flags=_network_10(trt) if typed else _network_8(trt), graph=graph, spec=spec
    )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not typed:
        _allow_8(trt, config, spec)
    for profile in target.profiles:
        making.add_profile(builder, config, network, profile)
    cache = making.timings(config, spec.cache, target)
    plan = making.built(trt, builder, network=network, config=config, spec=spec)
    if spec.cache is not None:
        write_whole(spec.cache / target.timings, bytes(cache.serialize()))
    return plan


def _network_10(trt: ModuleType) -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _network_8(trt: ModuleType) -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


def _allow_8(trt: ModuleType, config: Any, spec: EngineSpec) -> None:
    """Allow an engine to compute in fewer bits; without a flag it stays in FP32."""
    flags = {
        "fp32": [],
        "fp16": [trt.BuilderFlag.FP16],
        "bf16": None,
        "int8": [trt.BuilderFlag.INT8, trt.BuilderFlag.FP16],
    }[spec.precision]
    if flags is None:
        raise DeployError(
            f"precision bf16 is none of TensorRT {trt.__version__}; allowed are fp32, fp16, int8"
        )
    for flag in flags:
        config.set_flag(flag)


def _device_bytes_8(engine: Any) -> int:
    return int(engine.device_memory_size)


def _device_bytes_10(engine: Any) -> int:
    return int(engine.device_memory_size_v2)


def _command(graph: Path, model: ModelProto, spec: EngineSpec, target: making.Target) -> str:
    """Return the trtexec command that builds the same engine and times it at the largest shape."""
    largest = target.profiles[-1]
    names = [value.name for value in model.graph.input]
    flags = {"fp32": [], "fp16": ["--fp16"], "bf16": ["--bf16"], "int8": ["--int8", "--fp16"]}[spec.precision]
    typed = int(target.version.split(".")[0]) >= TYPED
    arguments = ["trtexec", f"--onnx={graph}", *(["--stronglyTyped"] if typed else flags)]
    arguments += making.shape_words(model, target.profiles)
    arguments.append("--shapes=" + ",".join(f"{name}:{largest.rows}x{largest.length}" for name in names))
    if len(target.profiles) > 1:
        arguments.append(f"--useProfile={len(target.profiles) - 1}")
    if spec.cache is not None:
        arguments.append(f"--timingCacheFile={spec.cache / target.timings}")
    return " ".join([*arguments, "--useCudaGraph", "--profilingVerbosity=detailed"])
