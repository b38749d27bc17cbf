"""Export of a torch module to one ONNX file with Q/DQ pairs and dynamic batch and length.

``torch.export`` traces the model, ``torch.onnx`` translates the trace, :mod:`qexp.deploy.onnx.qdq_ops`
defines how the two quantization operators are written, and :mod:`qexp.deploy.onnx.passes` cleans up the
result.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from qexp.deploy.onnx.blocks import write_products
from qexp.deploy.onnx.decompositions import exchange_operators
from qexp.deploy.onnx.dynamic_scales import move_scales
from qexp.deploy.onnx.io import checked, first_line, opset_of, write
from qexp.deploy.onnx.packing import pack_weights
from qexp.deploy.onnx.passes import optimize_graph
from qexp.deploy.onnx.qdq_ops import OPSET, TRANSLATIONS, WIDE_OPSET, opset_for
from qexp.deploy.onnx.uint8 import shift_activations
from qexp.deploy.onnx.workarounds import keep_exact
from qexp.errors import DeployError
from qexp.naming import HIDDEN, POOLED

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Possible inputs of an encoder, in the order of the file; all int64 [batch, length]."""
AXES = ("batch", "length")
"""Names of the dynamic axes of these inputs."""
Translations = Mapping[Callable[..., Any], Callable[..., Any]]
"""ONNX translation of each custom operator."""
OUTPUT = "logits"
"""Name of the output: float32 [batch, outputs]; for question answering [batch, length, 2], start and end."""


@dataclass(frozen=True)
class GraphPart:
    """Part of a model that is written as one file."""

    name: str
    """Name used in error messages."""
    module: nn.Module
    """Module that takes the inputs by position and returns one tensor, or a tuple of them."""
    inputs: Mapping[str, Tensor]
    """Example of each input; the sizes of named axes do not matter."""
    axes: Mapping[str, tuple[str | None, ...]]
    """Names of the dynamic axes of each input, None for a fixed size; equal names mean equal sizes."""
    output: str
    """Name of the first output."""
    more: tuple[str, ...] = ()
    """Names of further outputs."""
    output_axes: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Names of the axes of outputs that are not those of an input, as ``axes``."""
    inner: tuple[str, ...] = ()
    """Names of further tensors that the module returns, behind the outputs: values in the graph that keep
    these names."""


def export_onnx(
    model: nn.Module,
    path: Path,
    *,
    example: Mapping[str, Tensor],
    opset: int | None = None,
    packed: bool = True,
) -> None:
    """Write ``model`` as one self-contained ONNX file.

    Inputs are those of ``INPUTS`` that the model's ``forward`` accepts, the output is ``logits``, or
    ``sentence_embedding`` of a model with a pooling (:mod:`qexp.models.pooling`). The file is
    written atomically, and the model is restored to the mode (training or not) that it had.

    Args:
        model: Module like ``AutoModelForSequenceClassification``, in floating point or with
            ``torch.ops.qexp`` in its forward pass.
        path: File to write; its folder must exist.
        example: Integers [batch, length] for each input. Sizes do not matter, since they stay dynamic;
            inputs that the model does not take are ignored, and token types may be absent.
        opset: As in :func:`write_graph`.
        packed: As in :func:`write_graph`.

    Raises:
        DeployError: An input is missing, the model cannot be traced or translated, or is too large.
    """
    with _encoder_part(model, example) as part:
        write_graph(part, path, opset=opset, packed=packed)


def translate(
    model: nn.Module, translations: Translations, *, example: Mapping[str, Tensor]
) -> tuple[ir.Model, Mapping[str, Sequence[str | None]]]:
    """Return the graph of an encoder as the exporter leaves it, and the names of the axes of its inputs.

    Args:
        model: As in :func:`export_onnx`.
        translations: How ``torch.ops.qexp`` is written.
        example: As in :func:`export_onnx`.

    Raises:
        DeployError: An input is missing, or the model cannot be traced or translated.
    """
    with _encoder_part(model, example) as part, _quiet(), torch.no_grad():
        return _translate(_trace(part), part, OPSET, translations), part.axes


def write_graph(part: GraphPart, path: Path, *, opset: int | None = None, packed: bool = True) -> None:
    """Write one part of a model in evaluation mode as one self-contained ONNX file.

    From opset 21 on, 8-bit activations are unsigned. ONNX Runtime 1.32 makes them so itself, but not the
    ``output_dtype`` of quantizers that it moves past a ``Reshape``, and then refuses the graph.

    Args:
        part: Part to write.
        path: File to write, atomically.
        opset: Version of the ONNX operators; None selects 20, or 21 if a grid has more than 8 bits. Packed
            weights raise it as far as they need.
        packed: Whether weights of at most 4 bits are stored in half a byte, and of 2 bits in a quarter; see
            :mod:`qexp.deploy.onnx.packing`.

    Raises:
        DeployError: The part cannot be traced or translated, or is too large.
    """
    with _quiet(), torch.no_grad():
        program = _trace(part)
        exchange_operators(program)
        graph = _translate(program, part, opset or opset_for(program), TRANSLATIONS)
        optimize_graph(graph, {**part.axes, **part.output_axes})
        move_scales(graph.graph)
        write_products(graph.graph)
        keep_exact(graph.graph)
        del graph.graph.outputs[1 + len(part.more) :]  # part.inner: named by the exporter, and no outputs
        RemoveUnusedNodesPass()(graph)
        if packed:
            pack_weights(graph)
        proto = checked(graph)
    if opset_of(proto) >= WIDE_OPSET:
        shift_activations(proto)
    write(proto, path)


@contextmanager
def _encoder_part(model: nn.Module, example: Mapping[str, Tensor]) -> Iterator[GraphPart]:
    """Return an encoder as a part to write, with the model in evaluation mode meanwhile."""
    inputs = _inputs(model, example)
    pooled = getattr(getattr(model, "config", None), "sentence_pooling", None) is not None
    with evaluating(model), _plain_attention(model):
        yield GraphPart(
            type(model).__name__,
            _Logits(model, tuple(inputs)),
            inputs=inputs,
            axes=dict.fromkeys(inputs, AXES),
            output=POOLED if pooled else OUTPUT,
            inner=(HIDDEN,) if pooled else (),
        )


class _Logits(nn.Module):
    """Wrapper that takes the inputs by position and returns only the logits, as the exporter requires.

    Of a model with a pooling, it returns the embeddings and the hidden states.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        parameters = inspect.signature(model.forward).parameters
        self.types_absent = "token_type_ids" in parameters and "token_type_ids" not in names

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        arguments = dict(zip(self.names, inputs, strict=True))
        if self.types_absent:  # a constant; the model's own default may be a lookup by position
            arguments["token_type_ids"] = torch.zeros_like(inputs[0])
        output = self.model(**arguments)
        if not isinstance(output, Tensor) and "start_logits" in output:
            return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
        if not isinstance(output, Tensor) and POOLED in output:
            return output[POOLED], output[HIDDEN]
        logits: Tensor = output if isinstance(output, Tensor) else output[OUTPUT]
        return logits


def _inputs(model: nn.Module, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parameters = inspect.signature(model.forward).parameters
    optional = "token_type_ids"  # all 0 for a model that is not given them
    names = [name for name in INPUTS if name in parameters and (name in example or name != optional)]
    missing = [name for name in names if name not in example]
    if missing or not names:
        raise DeployError(
            f"example: {type(model).__name__} takes {names or 'none of ' + str(INPUTS)}, the example has "
            f"{sorted(example)}; add {missing or 'an encoder with these inputs'}"
        )
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return {name: at_least_two(example[name]).to(device, torch.int64) for name in names}


def at_least_two(values: Tensor) -> Tensor:
    """Repeat axes of size 1, which the tracer would treat as constant."""
    return values.repeat([2 if size == 1 else 1 for size in values.shape])


def _trace(part: GraphPart) -> ExportedProgram:
    axes = [part.axes[name] for name in part.inputs]
    dynamic = tuple({index: Dim.DYNAMIC for index, name in enumerate(each) if name} for each in axes)
    parameters = inspect.signature(part.module.forward).parameters.values()
    bundled = any(each.kind is each.VAR_POSITIONAL for each in parameters)  # one argument to the tracer
    try:
        return torch.export.export(
            part.module, tuple(part.inputs.values()), dynamic_shapes=(dynamic,) if bundled else dynamic
        )
    except Exception as error:  # the tracer runs the model's own code, which may raise anything
        raise DeployError(
            f"{part.name} cannot be traced with dynamic batch and length: {first_line(error)}; "
            "run the model on the example, and look in its forward pass for Python that depends on values"
        ) from error


def _translate(program: ExportedProgram, part: GraphPart, opset: int, translations: Translations) -> ir.Model:
    try:
        exported = torch.onnx.export(
            program,
            (),
            input_names=tuple(part.inputs),
            output_names=[part.output, *part.more, *part.inner],
            opset_version=opset,
            custom_translation_table=dict(translations),
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # translations come from three packages, each with its own errors
        raise DeployError(
            f"the traced model cannot be written with ONNX operators of opset {opset}: {first_line(error)}; "
            "replace the operator that the message names, or try another opset"
        ) from error
    assert exported is not None
    return exported.model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and restore the mode of each module on exit."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Switch SDPA to eager attention, so that its products and softmax are exported as separate nodes.

    The exporter decomposes SDPA itself, but with a guard against NaN around each softmax that no runtime
    fuses. Attention that qexp quantizes, or that has another implementation, is left alone.
    """
    chosen = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if chosen != "sdpa" or not isinstance(model, PreTrainedModel):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress log messages and warnings of the exporter that users of qexp cannot act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # each export logs that torchvision's operators are missing
    try:
        with warnings.catch_warnings():
            # torch copies its own tree specs with a deprecated check.
            warnings.filterwarnings("ignore", r".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
