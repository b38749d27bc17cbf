from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.input_limits import InputLimits, limits
from qexp.errors import DeployError
from tests.support.graphs import export
from tests.support.tiny_encoders import CONFIGS, EXAMPLE, encoder


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=() if name in ("bert", "roberta") else pytest.mark.slow) for name in CONFIGS],
)
def test_limits_are_those_of_the_configuration(architecture, tmp_path):
    model = encoder(architecture)
    export_onnx(model, tmp_path / "m.onnx", example=EXAMPLE)
    result = limits(onnx.load(tmp_path / "m.onnx"))
    config = model.config
    # RoBERTa's positions begin after the padding's.
    first = config.pad_token_id + 1 if architecture == "roberta" else 0
    assert result.length == config.max_position_embeddings - first
    types = {"token_type_ids": 2} if hasattr(config, "type_vocab_size") else {}
    assert result.rows == {"input_ids": config.vocab_size} | types


def test_tables_of_integers_have_the_same_limits(tmp_path):
    case = export(tmp_path, "quant=w8a8", "placement=neurst", "scheme=per_channel")
    assert limits(onnx.load(case.path)) == InputLimits({"input_ids": 50, "token_type_ids": 2}, 40)


def test_one_row_for_all_tokens_limits_no_length(tmp_path):
    """As token types of a model that has a single one, beside rotary positions."""

    class Rotary(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.types = torch.nn.Embedding(9, 4), torch.nn.Embedding(1, 4)

        def forward(self, input_ids):
            return self.words(input_ids) + self.types(torch.zeros_like(input_ids))

    export_onnx(Rotary(), tmp_path / "m.onnx", example=EXAMPLE)
    assert limits(onnx.load(tmp_path / "m.onnx")) == InputLimits({"input_ids": 9}, None)


def test_graph_without_tables_has_none():
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    assert limits(helper.make_model(graph)) == InputLimits({}, None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 5]]), "ids holds 0 to 5, its table has rows 0 to 4"),
        (np.array([[-1, 1]]), "ids holds -1 to 1"),
        (np.zeros((1, 4), np.int64), "ids has 4 tokens, the model has positions for 3"),
    ],
)
def test_what_is_outside_is_named(values, words):
    with pytest.raises(DeployError, match=words):
        InputLimits({"ids": 5}, 3).check({"ids": values})


def test_what_is_inside_passes():
    InputLimits({"ids": 5}, 3).check({"ids": np.array([[0, 4, 2]])})
    InputLimits({"ids": 5}, None).check({"ids": np.zeros((0, 9), np.int64)})
