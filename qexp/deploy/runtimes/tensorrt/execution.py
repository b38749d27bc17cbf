"""Execution of an engine on a GPU, with memory from torch and one context for each recurring shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from qexp.deploy.engine import Audit, Batch, Info, check_names
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.runtimes.tensorrt.audit import audit
from qexp.deploy.runtimes.tensorrt.build import Profile, make_logger
from qexp.errors import DeployError

TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}
"""Types of torch by TensorRT's names."""
Shape = tuple[tuple[str, tuple[int, ...]], ...]
"""Sizes of all inputs."""


@dataclass
class BoundContext:
    """Execution context with memory for one shape."""

    context: Any
    given: dict[str, torch.Tensor]
    result: torch.Tensor
    graph: torch.cuda.CUDAGraph | None = None
    """Recorded kernel launches; replaying them saves the CPU work of each launch."""
    runs: int = 0


class Execution:
    """Runner of an engine.

    A context and its buffers belong to one shape. Those of the shapes in the spec are kept, and their
    launches are recorded as a CUDA graph on the second run. Any other shape gets a context for a single run:
    the gate's batches have many shapes, and each context takes device memory.
    """

    def __init__(
        self, trt: ModuleType, engine: Any, found: tuple[Profile, ...], kept: set[tuple[int, int]]
    ) -> None:
        self._trt = trt
        self._engine = engine
        self._profiles = found
        self._kept = kept
        self._bound: dict[Shape, BoundContext] = {}
        self._stream = torch.cuda.Stream()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = trt.TensorIOMode.INPUT
        self.inputs = tuple(name for name in names if engine.get_tensor_mode(name) == given)
        """Names of the inputs."""
        (self._output,) = [name for name in names if name not in self.inputs]

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the output for a batch whose inputs and values have been checked.

        Raises:
            DeployError: The batch is larger than every profile, or the device has no memory for it.
        """
        shape: Shape = tuple((name, tuple(np.shape(batch[name]))) for name in self.inputs)
        try:
            bound = self._bound.get(shape) or self._bind(shape)
            with torch.cuda.stream(self._stream):
                for name, memory in bound.given.items():
                    memory.copy_(torch.from_numpy(np.ascontiguousarray(batch[name])))
                self._launch(bound)
                result = bound.result.float().cpu()
        except torch.cuda.OutOfMemoryError as error:
            raise DeployError(
                f"batch: no memory on the device for shapes {dict(shape)}: {error}; use smaller batches"
            ) from error
        numbers: NDArray[np.float32] = result.numpy()
        return numbers

    def layers(self) -> list[dict[str, Any] | str]:
        """Return the engine inspector's entry for each layer."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        layers: list[dict[str, Any] | str] = json.loads(text)["Layers"]
        return layers

    def _bind(self, shape: Shape) -> BoundContext:
        sizes = [size for _, size in shape if len(size) >= 2]
        rows, length = max(size[0] for size in sizes), max(size[1] for size in sizes)
        index = next((i for i, each in enumerate(self._profiles) if each.holds(rows, length)), None)
        if index is None:
            largest = ", ".join(f"{each.rows}x{each.length}" for each in self._profiles)
            raise DeployError(
                f"batch: {rows} rows of {length} tokens are more than the engine was built for ({largest}); "
                "order an engine with this shape among its shapes"
            )
        context = self._engine.create_execution_context()
        _, messages = make_logger(self._trt)
        if context is None:
            raise DeployError(f"batch: the device has no room for {rows}x{length}: {messages.take()}")
        if index:
            context.set_optimization_profile_async(index, self._stream.cuda_stream)
        bound = BoundContext(
            context, {name: self._memory(name, size) for name, size in shape}, torch.empty(0)
        )
        for name, memory in bound.given.items():
            context.set_input_shape(name, tuple(memory.shape))
            context.set_tensor_address(name, memory.data_ptr())
        bound.result = self._memory(self._output, tuple(context.get_tensor_shape(self._output)))
        context.set_tensor_address(self._output, bound.result.data_ptr())
        self._stream.synchronize()
        if (rows, length) in self._kept:
            self._bound[shape] = bound
        return bound

    def _memory(self, name: str, size: tuple[int, ...]) -> torch.Tensor:
        kind = str(self._engine.get_tensor_dtype(name)).rpartition(".")[2]
        return torch.empty(size, dtype=TYPES[kind], device="cuda")

    def _launch(self, bound: BoundContext) -> None:
        """Launch the kernels directly on the first run, which prepares the context, then as a CUDA graph."""
        bound.runs += 1
        if bound.runs == 2:
            self._stream.synchronize()
            bound.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(bound.graph, stream=self._stream):
                self._enqueue(bound)
        if bound.graph is not None:
            bound.graph.replay()
        else:
            self._enqueue(bound)

    def _enqueue(self, bound: BoundContext) -> None:
        if not bound.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            _, messages = make_logger(self._trt)
            raise DeployError(f"batch: {self._trt.__name__} cannot run it: {messages.take()}")


class DeviceEngine:
    """Base class of the engines of both runtimes."""

    def __init__(self, execution: Execution, model: ModelProto, info: Info) -> None:
        self._execution = execution
        self._model = model
        self._limits = limits(model)
        self.inputs: tuple[str, ...] = execution.inputs
        """Names of the inputs."""
        self.info = info
        """Description of the engine."""

    def layers(self) -> list[dict[str, Any] | str]:
        """Return the engine inspector's entry for each layer."""
        return self._execution.layers()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's output for a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, a value lies outside its table, the batch is larger
                than the engine was built for, or the device has no memory for it.
        """
        check_names(self.inputs, batch)
        self._limits.check(batch)
        return self._execution.run(batch)

    def audit(self, batch: Batch) -> Audit | None:
        """Return the work done for a batch of this shape, from the engine inspector."""
        check_names(self.inputs, batch)
        return audit(self.layers(), self._model, batch)
