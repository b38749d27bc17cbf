"""A module in torch -> one ONNX file with Q/DQ pairs and dynamic batch and length.

``torch.export`` traces the model, ``torch.onnx`` translates the trace, :mod:`qexp.deploy.onnx.qdq_ops`
says how the two quantization operators are written, and :mod:`qexp.deploy.onnx.passes` tidies the result.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from qexp.deploy.onnx.int4 import narrow_weights
from qexp.deploy.onnx.io import checked, first_line, write
from qexp.deploy.onnx.passes import tidy
from qexp.deploy.onnx.qdq_ops import TRANSLATIONS, WIDE_OPSET, opset_for
from qexp.deploy.onnx.workarounds import keep_exact
from qexp.errors import DeployError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs that an encoder can have, in the order in which the file lists them; all int64 [batch, length]."""
AXES = ("batch", "length")
"""Names of the dynamic axes of these inputs."""
OUTPUT = "logits"
"""The one output: float32 [batch, outputs]; of question answering [batch, length, 2], starts and ends."""


@dataclass(frozen=True)
class Part:
    """What one file is to hold."""

    name: str
    """What messages call it."""
    module: nn.Module
    """Takes the inputs by position and returns one tensor."""
    inputs: Mapping[str, Tensor]
    """An example of each input; sizes do not matter where axes have names."""
    axes: Mapping[str, tuple[str | None, ...]]
    """Names of the dynamic axes of each input, None where the size stays; equal names, equal sizes."""
    output: str
    """Name of what comes out."""


def export_onnx(
    model: nn.Module,
    path: Path,
    *,
    example: Mapping[str, Tensor],
    opset: int | None = None,
    narrow: bool = False,
) -> None:
    """Write ``model`` as one self-contained ONNX file.

    Inputs are those of ``INPUTS`` that the model's ``forward`` names, output is ``logits``. The file
    appears whole or not at all, and the model comes back in the mode (training or not) it had.

    Args:
        model: A module like ``AutoModelForSequenceClassification``, in floating point or with
            ``torch.ops.qexp`` in its forward pass.
        path: The file to write; its folder exists.
        example: Integers [batch, length] for each input. Sizes do not matter, they stay dynamic;
            inputs that the model does not take are ignored.
        opset: As in :func:`write_graph`.
        narrow: As in :func:`write_graph`.

    Raises:
        DeployError: An input is missing, the model cannot be traced or translated, or is too large.
    """
    inputs = _inputs(model, example)
    part = Part(
        type(model).__name__, _Logits(model, tuple(inputs)), inputs, dict.fromkeys(inputs, AXES), OUTPUT
    )
    with evaluating(model), _plain_attention(model):
        write_graph(part, path, opset=opset, narrow=narrow)


def write_graph(part: Part, path: Path, *, opset: int | None = None, narrow: bool = False) -> None:
    """Write one part of a model, which is in evaluation mode, as one self-contained ONNX file.

    Args:
        part: What to write.
        path: The file; it appears whole or not at all.
        opset: Version of the ONNX operators; None takes 20, or 21 when a grid has more than 8 bits or
            integers are stored in half a byte.
        narrow: Whether weights of 4 bits and less are stored in half a byte; see
            :mod:`qexp.deploy.onnx.int4`.

    Raises:
        DeployError: The part cannot be traced or translated, or is too large.
    """
    with _quiet(), torch.no_grad():
        program = _trace(part)
        graph = _translate(program, part, opset or (WIDE_OPSET if narrow else opset_for(program)))
        tidy(graph, part.axes)
        if narrow:
            narrow_weights(graph)
        keep_exact(graph.graph)
        RemoveUnusedNodesPass()(graph)
        proto = checked(graph)
    write(proto, path)


class _Logits(nn.Module):
    """Takes the inputs by position and returns the logits alone, as the exporter wants it."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        output = self.model(**dict(zip(self.names, inputs, strict=True)))
        if not isinstance(output, Tensor) and "start_logits" in output:
            return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
        logits: Tensor = output if isinstance(output, Tensor) else output[OUTPUT]
        return logits


def _inputs(model: nn.Module, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    taken = [name for name in INPUTS if name in inspect.signature(model.forward).parameters]
    missing = [name for name in taken if name not in example]
    if missing or not taken:
        raise DeployError(
            f"example: {type(model).__name__} takes {taken or 'none of ' + str(INPUTS)}, the example has "
            f"{sorted(example)}; add {missing or 'an encoder with these inputs'}"
        )
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return {name: at_least_two(example[name]).to(device, torch.int64) for name in taken}


def at_least_two(values: Tensor) -> Tensor:
    """Repeat axes of size 1: the tracer takes such a size for a constant."""
    return values.repeat([2 if size == 1 else 1 for size in values.shape])


def _trace(part: Part) -> ExportedProgram:
    axes = [part.axes[name] for name in part.inputs]
    dynamic = tuple({index: Dim.DYNAMIC for index, name in enumerate(each) if name} for each in axes)
    bundled = isinstance(part.module, _Logits)  # whose inputs are one argument to the tracer
    try:
        return torch.export.export(
            part.module, tuple(part.inputs.values()), dynamic_shapes=(dynamic,) if bundled else dynamic
        )
    except Exception as error:  # the tracer runs the model's own code, which may raise anything
        raise DeployError(
            f"{part.name} cannot be traced with dynamic batch and length: {first_line(error)}; "
            "run the model on the example, and look in its forward pass for Python that depends on values"
        ) from error


def _translate(program: ExportedProgram, part: Part, opset: int) -> ir.Model:
    try:
        exported = torch.onnx.export(
            program,
            (),
            input_names=tuple(part.inputs),
            output_names=[part.output],
            opset_version=opset,
            custom_translation_table=TRANSLATIONS,
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
    """A model in evaluation mode, that comes back in the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Write torch's one operator for attention as its products and softmax.

    The exporter breaks it up itself, with a guard against NaN around each softmax that no runtime fuses.
    Attention that qexp quantizes, or that was chosen otherwise, stays.
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
    """Keep the exporter's remarks, which no user of qexp can act on, off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # says at each export that torchvision's operators are not at hand
    try:
        with warnings.catch_warnings():
            # torch copies its own tree specs with a deprecated check.
            warnings.filterwarnings("ignore", r".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
