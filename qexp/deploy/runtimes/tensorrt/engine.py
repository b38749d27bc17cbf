"""TensorRT 8.6, 10 and 11 on an NVIDIA GPU.

From version 10 on the network is strongly typed: the graph's own types say what is computed in what, so
the graph is rewritten to 16 bits where the order says so (:mod:`qexp.deploy.onnx.fp16_proto`), and what
stands between QuantizeLinear and DequantizeLinear is int8. Version 8.6 has no such network: there flags
allow INT8 and FP16, and its own judgement chooses. Calibrators, dynamic ranges and precision flags, which
version 11 removed, are not used. Names that one version alone has are in functions that end in ``_8`` or
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
from qexp.deploy.engine import Info, Order, not_installed
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.runtimes.tensorrt import build as making
from qexp.deploy.runtimes.tensorrt.execution import DeviceEngine, Execution
from qexp.deploy.runtimes.tensorrt.rewrite import prepared
from qexp.errors import DeployError

TYPED = 10
"""The first major version with strongly typed networks."""


class TensorRTEngine(DeviceEngine):
    """An engine on this machine's GPU."""

    def __init__(self, order: Order) -> None:
        """Build an engine, or load the one that was kept.

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
        model = prepared("tensorrt", order, typed=major >= TYPED)
        found = making.profiles(order, limits(model).length)
        plan, key, target = _plan(trt, order, model, found)
        engine = trt.Runtime(making.listening(trt)[0]).deserialize_cuda_engine(plan)
        if engine is None:
            raise DeployError(
                f"{order.graph}: TensorRT cannot load its engine: {making.listening(trt)[1].take()}"
            )
        execution = Execution(trt, engine, found, set(order.shapes))
        command = _command(making.graph_file(model, order, key), model, order, target)
        memory = _device_bytes_8(engine) if major < TYPED else _device_bytes_10(engine)
        info = Info(
            "tensorrt", str(trt.__version__), target.device, order.precision, len(plan),
            time.perf_counter() - started, command, memory,
        )  # fmt: skip
        super().__init__(execution, model, info)


def load(order: Order) -> TensorRTEngine:
    """An engine for an exported file.

    Raises:
        DeployError: as ``TensorRTEngine``.
    """
    return TensorRTEngine(order)


def _tensorrt() -> ModuleType:
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # its libraries, or those of CUDA, may be what is missing
        raise not_installed("tensorrt", "tensorrt") from error
    module: ModuleType = tensorrt
    return module


def _major(trt: ModuleType) -> int:
    return int(str(trt.__version__).split(".")[0])


def _plan(
    trt: ModuleType, order: Order, model: ModelProto, found: tuple[making.Profile, ...]
) -> tuple[bytes, str, making.Target]:
    """The serialized engine, the name that it is kept by, and what it is for."""
    capability = ".".join(str(each) for each in torch.cuda.get_device_capability())
    target = making.Target(
        "tensorrt", str(trt.__version__), torch.cuda.get_device_name(), capability, order.precision, found
    )
    graph = model.SerializeToString(deterministic=True)
    key = target.key(graph)
    file = order.cache / f"{key}.engine" if order.cache is not None else None
    if file is not None and file.exists():
        return file.read_bytes(), key, target
    plan = _built(trt, order, graph, target)
    if file is not None:
        write_whole(file, plan)
    return plan, key, target


def _built(trt: ModuleType, order: Order, graph: bytes, target: making.Target) -> bytes:
    logger, _ = making.listening(trt)
    builder = trt.Builder(logger)
    typed = _major(trt) >= TYPED
    network = making.parsed(trt, builder, _network_10(trt) if typed else _network_8(trt), graph, order)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not typed:
        _allow_8(trt, config, order)
    for profile in target.profiles:
        making.add_profile(builder, config, network, profile)
    cache = making.timings(config, order.cache, target)
    plan = making.built(trt, builder, network, config, order)
    if order.cache is not None:
        write_whole(order.cache / target.timings, bytes(cache.serialize()))
    return plan


def _network_10(trt: ModuleType) -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _network_8(trt: ModuleType) -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


def _allow_8(trt: ModuleType, config: Any, order: Order) -> None:
    """Let an engine compute in fewer bits; without a flag it stays in FP32."""
    flags = {
        "fp32": [],
        "fp16": [trt.BuilderFlag.FP16],
        "bf16": None,
        "int8": [trt.BuilderFlag.INT8, trt.BuilderFlag.FP16],
    }[order.precision]
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


def _command(graph: Path, model: ModelProto, order: Order, target: making.Target) -> str:
    """The line for trtexec that builds and times the same engine at the largest shape."""
    largest = target.profiles[-1]
    names = [value.name for value in model.graph.input]
    flags = {"fp32": [], "fp16": ["--fp16"], "bf16": ["--bf16"], "int8": ["--int8", "--fp16"]}[
        order.precision
    ]
    typed = int(target.version.split(".")[0]) >= TYPED
    words = ["trtexec", f"--onnx={graph}", *(["--stronglyTyped"] if typed else flags)]
    words += making.shape_words(model, target.profiles)
    words.append("--shapes=" + ",".join(f"{name}:{largest.rows}x{largest.length}" for name in names))
    if len(target.profiles) > 1:
        words.append(f"--useProfile={len(target.profiles) - 1}")
    if order.cache is not None:
        words.append(f"--timingCacheFile={order.cache / target.timings}")
    return " ".join([*words, "--useCudaGraph", "--profilingVerbosity=detailed"])
