"""Engine of PyTorch alone: an exported graph as a torch module, with real integer products.

For a machine that has no other runtime: on a GPU without TensorRT it measures the gain of INT8, under the
same gate as the other runtimes. The graph is translated node by node
(:mod:`qexp.deploy.runtimes.torch_int8.translate`); products of quantized activations by int8 weights use
``torch._int_mm``, exact in int32.

- On a GPU the module is compiled: quantizing, dequantizing, bias, GELU and norms become a few Triton kernels
  around, or inside, the products. Each length in the spec is compiled once for one row and once for more
  rows, tuned with the largest number of rows in the spec and replayed as CUDA graphs. All other lengths share
  one compiled module. Everything that is not quantized is computed in FP16.
- On a CPU nothing is compiled, since that takes a minute before the first batch. Everything that is not
  quantized is computed in FP32. FP16 is refused: few CPUs have such arithmetic.
- The two products of an attention stay in floating point: torch has no batched integer product. Where
  nothing between them is quantized they become one ``scaled_dot_product_attention``, as in FP16.
- Kernels may be wrong for the largest values, as on CPUs without VNNI. The engine detects this by multiplying
  these values; then no product uses integers, and the audit shows it.

Results equal those of the Q/DQ pairs up to the rounding of floats. That rounding may move a value between two
steps to the other one, and later layers amplify the difference. ONNX Runtime's optimized session departs
from the graph as written for the same reason; on real W8A8 encoders that was 0.2 to 0.5 % of a logit, and
here 0.2 to 2.4 %: the gate judges it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from torch import Tensor, fx

from qexp.config import Precision
from qexp.deploy.engine import Audit, Batch, EngineSpec, Info, check_names
from qexp.deploy.hardware import processor
from qexp.deploy.onnx.decompose_qdq import dequantize_weights
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.onnx.io import first_line, read
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.torch_int8.audit import audit
from qexp.deploy.runtimes.torch_int8.int8_matmul import exact
from qexp.deploy.runtimes.torch_int8.translate import ComputeOptions, translate
from qexp.errors import DeployError

KINDS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Arithmetic of a graph without integers."""
TYPES: dict[int, type] = {TensorProto.INT64: np.int64, TensorProto.FLOAT: np.float32}
"""Types of the inputs that an exported graph has."""

Compute = Callable[..., Tensor]


class TorchInt8Engine:
    """Graph as a torch module, on the GPU if there is one."""

    def __init__(self, spec: EngineSpec) -> None:
        """Read and translate a graph.

        Raises:
            DeployError: The device does not compute in the precision, or the file is missing, damaged, or
                has an unsupported operator.
        """
        started = time.perf_counter()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        form = _form(spec.precision, self._device)
        before = self._allocated()
        model = read(spec.graph)
        check_graph("torch_int8", model, str(spec.graph))
        dequantize_weights(model)
        self._limits = limits(model)
        self._types, self._ranks = _inputs(model)
        self.inputs: tuple[str, ...] = tuple(self._types)
        """Names of the inputs."""
        self._module = translate(model, form)
        self._compiled = CompiledByLength(self._module, spec.shapes) if self._device.type == "cuda" else None
        self._threads = spec.threads
        memory = None if before is None else (self._allocated() or 0) - before
        self.info = Info(
            "torch_int8",
            torch.__version__,
            device=_name(self._device),
            precision=spec.precision,
            bytes=spec.graph.stat().st_size,
            build_seconds=time.perf_counter() - started,
            memory_bytes=memory,
        )
        """Description of the engine; its build time excludes compilation, done with the first batches."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's output for a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, a value lies outside its table, the batch is too
                long, its shape does not fit, or the device has no memory for it.
        """
        compute: Compute = self._compiled or self._module
        logits: NDArray[np.float32] = self._guarded(batch, lambda *feed: compute(*feed).float().cpu().numpy())
        return logits

    def audit(self, batch: Batch) -> Audit | None:
        """Return the work done for a batch of this shape.

        Raises:
            DeployError: As in ``run``.
        """
        result: Audit = self._guarded(batch, lambda *feed: audit(self._module, feed))
        return result

    def _guarded(self, batch: Batch, call: Callable[..., Any]) -> Any:
        check_names(self.inputs, batch)
        arrays: dict[str, NDArray[Any]] = {
            name: np.ascontiguousarray(np.asarray(batch[name]).astype(kind, casting="safe"))
            for name, kind in self._types.items()
        }
        shapes = {name: values.shape for name, values in arrays.items()}
        self._check_ranks(arrays)
        self._limits.check(arrays)
        try:
            with torch.no_grad(), _threads(self._threads):
                return call(*(torch.from_numpy(values).to(self._device) for values in arrays.values()))
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise DeployError(
                f"batch: {_name(self._device)} has no memory for shapes {shapes}; give fewer rows at a time"
            ) from error
        except (RuntimeError, IndexError, ValueError) as error:  # torch's own checks of shapes
            raise DeployError(
                f"batch: torch {torch.__version__} refuses it, with shapes {shapes}: {first_line(error)}; "
                "give integers [batch, length], all inputs of the same shape"
            ) from error

    def _check_ranks(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name, values in arrays.items():
            if values.ndim != self._ranks[name]:
                raise DeployError(
                    f"batch: {name} has shape {values.shape}, the graph takes {self._ranks[name]} axes; give "
                    "integers [batch, length]"
                )

    def _allocated(self) -> int | None:
        return torch.cuda.memory_allocated() if self._device.type == "cuda" else None


class CompiledByLength:
    """Module that is compiled separately for each length in the spec, and once for all other lengths."""

    def __init__(self, module: fx.GraphModule, shapes: tuple[tuple[int, int], ...]) -> None:
        self._module = module
        self._rows = {tokens: max(r for r, t in shapes if t == tokens) for _, tokens in shapes}
        self._forms: dict[tuple[int | None, bool], Compute] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the compiled module for a batch's shape, which the first such batch compiles."""
        rows, tokens = inputs[0].shape[:2]
        length = tokens if tokens in self._rows else None
        key = length, rows == 1
        if key not in self._forms:
            self._forms[key] = self._compile(length)
            if length is not None and 1 < rows < self._rows[length]:
                self._forms[key](*_mark_rows_dynamic(_repeat_first_row(inputs, self._rows[length])))
        return self._forms[key](*(_mark_rows_dynamic(inputs) if length is not None and rows > 1 else inputs))

    def _compile(self, known: int | None) -> Compute:
        """Compile a separate copy of the module: compiled code is cached, and counted, per code object."""
        own = fx.GraphModule(self._module, self._module.graph)
        if known is None:
            return torch.compile(own, dynamic=True)
        return torch.compile(own, dynamic=False, options={"triton.cudagraphs": True})


def load(spec: EngineSpec) -> TorchInt8Engine:
    """Load an exported file as a torch module.

    Raises:
        DeployError: As in ``TorchInt8Engine``.
    """
    return TorchInt8Engine(spec)


def _form(precision: Precision, device: torch.device) -> ComputeOptions:
    if precision == "fp16" and device.type == "cpu":
        raise DeployError(
            "precision fp16 is not what torch_int8 computes with on a CPU; allowed here are fp32, bf16, int8"
        )
    if precision == "int8":
        kind = torch.float16 if device.type == "cuda" else torch.float32
        return ComputeOptions(device, kind, integer=exact(device.type))
    return ComputeOptions(device, KINDS[precision], integer=False)


def _inputs(model: ModelProto) -> tuple[dict[str, type], dict[str, int]]:
    """Return the types and the numbers of axes of a graph's inputs."""
    kinds = {value.name: value.type.tensor_type for value in model.graph.input}
    types = {name: TYPES[kind.elem_type] for name, kind in kinds.items()}
    return types, {name: len(kind.shape.dim) for name, kind in kinds.items()}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _repeat_first_row(inputs: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
    """Return the first row of each input, repeated ``rows`` times."""
    return tuple(each[:1].repeat(rows, *(1,) * (each.dim() - 1)) for each in inputs)


def _mark_rows_dynamic(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mark the rows of the inputs as a dynamic axis for the compiler."""
    for each in inputs:
        torch._dynamo.maybe_mark_dynamic(each, 0)
    return inputs


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads of torch, and restore the previous number on exit."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)
