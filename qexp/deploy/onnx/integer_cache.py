"""Keys and values of a search as integers: 8 bits for each number between the steps of a decoder.

A key that a product reads through QuantizeLinear and DequantizeLinear is rounded at every step anew. Rounding
each number when it enters the cache gives the same integers, since all numbers share one scale:

    Concat(past, new) -> Quantize -> Dequantize   becomes   Concat(past, Quantize(new)) -> Dequantize

Likewise the encoder's file rounds what cross attention reads, once for each sentence. The integers are
unsigned, as ONNX Runtime's products want them.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from qexp.deploy.onnx.io import first_line, read, write
from qexp.deploy.onnx.uint8 import shift_activations
from qexp.errors import DeployError


def store_integers(encoder: Path, decoder: Path) -> None:
    """Rewrite the two files of a translation so that quantized keys and values pass between them as integers.

    Raises:
        DeployError: No key or value has a quantizer of 8 bits and one scale.
    """
    source, target = read(encoder, unpack=False), read(decoder, unpack=False)
    shift_activations(target)
    changed = [
        _round_new(target, value.name)
        for value in list(target.graph.output)
        if value.name.startswith("present_")
    ]
    changed += [
        _round_source(source, target, value.name)
        for value in list(target.graph.input)
        if value.name.startswith("cross_")
    ]
    if not any(changed):
        raise DeployError(
            "deploy.cache_bits=8: no key or value of the decoder has a quantizer of 8 bits and one static "
            "scale; add matmul.key and matmul.value to placement.sites with 8-bit activations, or set "
            "deploy.cache_bits=32"
        )
    for model, path in ((source, encoder), (target, decoder)):
        _check(model, path)
        write(model, path)


def _round_new(model: ModelProto, name: str) -> bool:
    """Round what enters the cache instead of all that leaves it; return whether it has a quantizer."""
    graph = model.graph
    join = next(node for node in graph.node if name in node.output)
    quantize = _only_quantizer(model, name)
    if quantize is None or join.op_type != "Concat":
        return False
    new = f"{name}.new"
    first = helper.make_node(
        "QuantizeLinear", [join.input[1], *quantize.input[1:]], [new], name=quantize.name
    )
    graph.node.insert(list(graph.node).index(join), first)
    join.input[1] = new
    _read_instead(model, quantize, name)
    for value in (*graph.input, *graph.output):
        if value.name in (name, name.replace("present", "past", 1)):
            value.type.tensor_type.elem_type = TensorProto.UINT8
    return True


def _round_source(encoder: ModelProto, decoder: ModelProto, name: str) -> bool:
    """Round a key or value of the source in the encoder's file; return whether it has a quantizer."""
    quantize = _only_quantizer(decoder, name)
    if quantize is None:
        return False
    maker = next(node for node in encoder.graph.node if name in node.output)
    exact = f"{name}.float"
    maker.output[list(maker.output).index(name)] = exact
    stored = {each.name: each for each in decoder.graph.initializer}
    own = []  # names of the decoder's file may mean something else in the encoder's
    for part, read_name in zip(("scale", "zero_point"), quantize.input[1:], strict=True):
        copied = encoder.graph.initializer.add()
        copied.CopyFrom(stored[read_name])
        copied.name = f"{name}.{part}"
        own.append(copied.name)
    encoder.graph.node.append(helper.make_node("QuantizeLinear", [exact, *own], [name], name=quantize.name))
    _read_instead(decoder, quantize, name)
    for value in (*encoder.graph.output, *decoder.graph.input):
        if value.name == name:
            value.type.tensor_type.elem_type = TensorProto.UINT8
    return True


def _only_quantizer(model: ModelProto, name: str) -> NodeProto | None:
    """Return the one node that reads a value, if it quantizes it to 8 bits with one stored scale."""
    readers = [node for node in model.graph.node if name in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or len(readers[0].input) != 3:
        return None
    stored = {each.name: each for each in model.graph.initializer}
    scale, point = (stored.get(each) for each in readers[0].input[1:])
    fits = scale is not None and point is not None and not scale.dims and point.data_type == TensorProto.UINT8
    return readers[0] if fits else None


def _read_instead(model: ModelProto, quantize: NodeProto, name: str) -> None:
    """Remove a quantizer, whose readers then read integers under a name."""
    for node in model.graph.node:
        for place, read_name in enumerate(node.input):
            if read_name == quantize.output[0]:
                node.input[place] = name
    model.graph.node.remove(quantize)


def _check(model: ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployError(f"{path}: its cache cannot be stored in integers: {first_line(error)}") from error
