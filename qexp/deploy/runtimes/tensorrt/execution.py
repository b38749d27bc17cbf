"""An engine on a GPU: memory from torch, one execution context for each shape that comes back."""

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
from qexp.deploy.runtimes.tensorrt.build import Profile, listening
from qexp.errors import DeployError

TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}
"""torch's types by the names of TensorRT's."""
Shape = tuple[tuple[str, tuple[int, ...]], ...]
"""Sizes of all inputs."""


@dataclass
class Bound:
    """A context with memory for one shape."""

    context: Any
    given: dict[str, torch.Tensor]
    result: torch.Tensor
    graph: torch.cuda.CUDAGraph | None = None
    """The recorded launches; replaying them saves the CPU's work for each."""
    runs: int = 0


class Execution:
    """Runs an engine.

    A context and its buffers belong to one shape; those of the shapes that were ordered are kept, and their
    launches are recorded as a CUDA graph when they come a second time. Any other shape gets a context for
    the one run: the gate's batches are of many shapes, and each context holds memory of the device.
    """

    def __init__(
        self, trt: ModuleType, engine: Any, found: tuple[Profile, ...], kept: set[tuple[int, int]]
    ) -> None:
        self._trt = trt
        self._engine = engine
        self._profiles = found
        self._kept = kept
        self._bound: dict[Shape, Bound] = {}
        self._stream = torch.cuda.Stream()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = trt.TensorIOMode.INPUT
        self.inputs = tuple(name for name in names if engine.get_tensor_mode(name) == given)
        """Names of the inputs."""
        (self._output,) = [name for name in names if name not in self.inputs]

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the output of a batch whose inputs and values were checked.

        Raises:
            DeployError: the batch is larger than every profile, or the device has no memory for it.
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
        """What the engine inspector tells of every layer."""
        inspector = self._engine.create_engine_inspector()
        told = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        found: list[dict[str, Any] | str] = json.loads(told)["Layers"]
        return found

    def _bind(self, shape: Shape) -> Bound:
        sizes = [size for _, size in shape if len(size) >= 2]
        rows, length = max(size[0] for size in sizes), max(size[1] for size in sizes)
        index = next((i for i, each in enumerate(self._profiles) if each.holds(rows, length)), None)
        if index is None:
            held = ", ".join(f"{each.rows}x{each.length}" for each in self._profiles)
            raise DeployError(
                f"batch: {rows} rows of {length} tokens are more than the engine was built for ({held}); "
                "order an engine with this shape among its shapes"
            )
        context = self._engine.create_execution_context()
        _, messages = listening(self._trt)
        if context is None:
            raise DeployError(f"batch: the device has no room for {rows}x{length}: {messages.take()}")
        if index:
            context.set_optimization_profile_async(index, self._stream.cuda_stream)
        bound = Bound(context, {name: self._memory(name, size) for name, size in shape}, torch.empty(0))
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

    def _launch(self, bound: Bound) -> None:
        """The first time plainly, which also readies the context; the second time it is recorded."""
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

    def _enqueue(self, bound: Bound) -> None:
        if not bound.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            _, messages = listening(self._trt)
            raise DeployError(f"batch: {self._trt.__name__} cannot run it: {messages.take()}")


class DeviceEngine:
    """What engines of both runtimes have in common."""

    def __init__(self, execution: Execution, model: ModelProto, info: Info) -> None:
        self._execution = execution
        self._model = model
        self._limits = limits(model)
        self.inputs: tuple[str, ...] = execution.inputs
        """Names of the inputs."""
        self.info = info
        """What it is."""

    def layers(self) -> list[dict[str, Any] | str]:
        """What the engine inspector tells of every layer."""
        return self._execution.layers()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's output of a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, a value lies outside its table, the batch is larger
                than the engine was built for, or the device has no memory for it.
        """
        check_names(self.inputs, batch)
        self._limits.check(batch)
        return self._execution.run(batch)

    def audit(self, batch: Batch) -> Audit | None:
        """What it does with a batch of that shape, by its inspector."""
        check_names(self.inputs, batch)
        return audit(self.layers(), self._model, batch)
