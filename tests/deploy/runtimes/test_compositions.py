"""Exported graphs in every runtime of this machine, compared with their unoptimized execution."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto
from pydantic import ValidationError

from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load, spec_of
from qexp.environment import conf_folder
from qexp.errors import QexpError
from tests.support.graphs import export
from tests.support.rounding import bare, floor, plainly, without_ties


def named(group: str, *left_out: str) -> list[str]:
    """Names of the files of a group of the configuration."""
    return sorted(each.stem for each in (conf_folder() / group).glob("*.yaml") if each.stem not in left_out)


RUNTIMES = ("onnxruntime", "openvino")
PLACEMENTS, SCHEMES = named("placement"), named("scheme")
QUANTS = named("quant", "fp32", "mxfp8", "nvfp4")  # those two are not exported
PRODUCT = [(p, s, q) for p in PLACEMENTS for s in SCHEMES for q in QUANTS]
SOME = {
    ("aimet", "per_channel", "w8a8"), ("aimet", "symmetric", "w4a8"), ("bondarenko", "per_channel", "w8a16"),
    ("ft_mode2", "per_channel", "w8a8"), ("gemm", "embedding_groups", "w8a8"),
    ("gemm", "per_channel", "w4a32"),
    ("neurst", "symmetric", "w8a8"), ("q8bert", "neurst", "w4a4"),
}  # fmt: skip
"""What the fast tests look at: each rule of the exporter at least once."""
KINDS = ("w8a8", "w4a8", "w2a8", "w8a16", "w4a16", "w4a32", "fp8")
"""Bit-widths of which the exporter makes something of its own; the others are like one of these."""
PAIRS = {
    (placement, SCHEMES[(row + column) % len(SCHEMES)], quant)
    for row, placement in enumerate(PLACEMENTS)
    for column, quant in enumerate(KINDS)
}
"""What the slow tests look at: each placement, and each scheme, with each kind of bit-widths."""


def marks(case: tuple[str, str, str]) -> list[pytest.MarkDecorator]:
    """None of what is tested always, slow, or slow and exhaustive."""
    if case in SOME:
        return []
    return [pytest.mark.slow] if case in PAIRS else [pytest.mark.slow, pytest.mark.exhaustive]


CASES = [pytest.param(*each, marks=marks(each)) for each in PRODUCT]


def test_slow_cases_pair_bit_widths_with_everything() -> None:
    assert {(placement, quant) for placement, _, quant in PAIRS} == set(product(PLACEMENTS, KINDS))
    assert {(scheme, quant) for _, scheme, quant in PAIRS} == set(product(SCHEMES, KINDS))


@pytest.mark.parametrize(("placement", "scheme", "quant"), CASES)
def test_every_composition(placement: str, scheme: str, quant: str, tmp_path: Path) -> None:
    words = [f"placement={placement}", f"scheme={scheme}", f"quant={quant}"]
    if scheme == "per_group":
        words.append("scheme.weight.group_size=16")  # the tiny encoder is 32 wide
    try:
        case = export(tmp_path, *words)
    except (QexpError, ValidationError) as error:
        pytest.skip(f"cannot be composed: {error}")
    model = onnx.load(case.path)
    assert not rewritten(model)
    feed = {name: values.astype(np.int64) for name, values in case.batch.items()}
    without_ties(model)
    path = tmp_path / "without_ties.onnx"
    onnx.save(model, path)
    expected = plainly(model, feed)
    allowed = 2e-6 * float(np.abs(expected).max()) + 2 * floor(model, feed)
    if scheme.startswith("dynamic") and quant.endswith("a16"):
        # Scales that are found at run time leave values at ties, of which 16 bits have many.
        allowed = max(allowed, 1e-3 * float(np.abs(expected).max()))
    spec = EngineSpec(path, "int8", 1)
    runtimes = [each for each in RUNTIMES if spec_of(each).floats or not quant.startswith("fp8")]
    for logits in (bare(model, feed, floats=True), *(load(each, spec).run(feed) for each in runtimes)):
        assert np.abs(logits - expected).max() <= allowed


@pytest.mark.parametrize("placement", ["aimet", "bondarenko"])
def test_overrides_to_float_stay_float(placement: str, tmp_path: Path) -> None:
    overrides = "quant.overrides={classifier*:{weight_bits:32}}"
    case = export(tmp_path, f"placement={placement}", "scheme=per_channel", "quant=w8a8", overrides)
    assert not rewritten(onnx.load(case.path))
    engine = load("onnxruntime", EngineSpec(case.path, "int8", 1))
    feed = {name: values.astype(np.int64) for name, values in case.batch.items()}
    expected = plainly(onnx.load(case.path), feed)
    np.testing.assert_allclose(engine.run(feed), expected, atol=2e-6 * np.abs(expected).max())
    audit = engine.audit(feed)
    assert audit is not None
    assert [each.name for each in audit.in_float if "classifier" in each.name]


def rewritten(model: ModelProto) -> list[str]:
    """Nodes of the patterns that a runtime rewrites into something close by; see docs/runtimes.md."""
    producers = {name: node for node in model.graph.node for name in node.output}
    matches = []
    for node in model.graph.node:
        first, second = (producers.get(name) for name in [*node.input[:2], ""][:2])
        if node.op_type == "Softmax" and is_dequantized(first):
            matches.append(f"softmax: {node.name}")
        if node.op_type == "Gemm" and is_dequantized(first):
            if not is_dequantized(second):
                matches.append(f"float weight: {node.name}")
            elif len(node.input) == 3 and not is_dequantized(producers.get(node.input[2])):
                matches.append(f"float bias: {node.name}")
        if node.op_type == "Clip" and is_dequantized(_unmoved(first, producers)):
            matches.append(f"clipped integers: {node.name}")
        twice = node.op_type == "QuantizeLinear" and first is not None and is_dequantized(first)
        if twice and grid(first, model) != grid(node, model):
            matches.append(f"two grids in a row: {node.name}")
    return matches


def _unmoved(node: NodeProto | None, producers: dict[str, NodeProto]) -> NodeProto | None:
    """The node whose values another one only moved."""
    while node is not None and node.op_type in ("Reshape", "Transpose"):
        node = producers.get(node.input[0])
    return node


def is_dequantized(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def grid(node: NodeProto, model: ModelProto) -> list[bytes]:
    """Scale and zero point of a node that quantizes or dequantizes."""
    stored = {each.name: each for each in model.graph.initializer}
    return [onnx.numpy_helper.to_array(stored[name]).tobytes() for name in node.input[1:]]
