"""Every encoder of sequence classification: new head, PTQ, a step of QAT, export, and both runtimes.

Residual sites of nine of them are in tests/pipeline/test_encoders.py, those of all in ``exhaustive`` tests,
and so are products of those whose attention is like that of another one here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from qexp.config import MaxCalibrator, QuantizationConfig
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes import load
from qexp.errors import QuantizationError
from qexp.models.loading import load_pretrained, model_inputs
from qexp.quant.insertion.insert import insert
from tests.conftest import experiment
from tests.support import encoders


def with_new_head(architecture: str, folder: Path) -> Any:
    """The model that a run makes of a checkpoint without a head."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(encoders.config(architecture)).save_pretrained(folder)
    return load_pretrained(folder, experiment("task=mrpc").task, 0).eval()


def quantize(architecture: str, placement: str, folder: Path) -> None:
    if architecture not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {architecture}")
    model = with_new_head(architecture, folder)
    made = experiment("task=mrpc", f"placement={placement}", "scheme=per_channel", "quant=w8a8")
    tensors = {name: value for name, value in encoders.batch().items() if name in model_inputs(model)}
    quantization = insert(
        model, QuantizationConfig(placement=made.placement, quant=made.quant, scheme=made.scheme)
    )
    with torch.no_grad(), quantization.observing(tensors["attention_mask"]):
        before = model(**tensors).logits
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    with torch.no_grad():
        assert torch.equal(model(**tensors).logits, before)
    quantization.learn()
    model.train()(**tensors, labels=torch.tensor([0, 1] * 3)).loss.backward()
    scales = {name: each for name, each in model.named_parameters() if name.endswith("scale")}
    without = [name for name, each in scales.items() if each.grad is None]
    # BigBird's head does not read the pooler, and LiLT's not the last layer's layout.
    assert len(without) < 0.15 * len(scales), without
    model.eval()
    quantization.freeze()
    with torch.no_grad():
        expected = model(**tensors).logits.numpy()
    path = folder / "model.onnx"
    with quantization.export_mode():
        export_onnx(model, path, example={name: value[:1].int() for name, value in tensors.items()})
    feed = {name: value.numpy() for name, value in tensors.items()}
    largest = float(np.abs(expected).max())
    assert np.abs(expected - before.numpy()).max() > 1e-3 * largest
    for runtime in ("onnxruntime", "openvino"):
        apart = np.abs(load(runtime, EngineSpec(path, "int8", 1)).run(feed) - expected).max(axis=1) / largest
        # A value beside a tie may round to the other step in a row or two.
        assert np.median(apart) < 1e-5
        assert apart.max() < 0.05


DISTINCT = (
    "albert", "big_bird", "convbert", "deberta", "deberta-v2", "esmc", "eurobert", "flaubert",
    "jina_embeddings_v3", "megatron-bert", "mobilebert", "modernbert", "mpnet", "nomic_bert", "nystromformer",
    "roformer", "xlm-roberta",
)  # fmt: skip
"""Encoders whose attention or layers are unlike those of the others."""
EXHAUSTIVE = pytest.mark.exhaustive
CASES = [
    pytest.param(each, placement, marks=[] if each in DISTINCT and placement == "gemm" else EXHAUSTIVE)
    for each in encoders.ENCODERS
    for placement in ("gemm", "qdqbert")
]


def test_the_distinct_ones_are_among_all() -> None:
    assert set(DISTINCT) < set(encoders.ENCODERS)


@pytest.mark.slow
@pytest.mark.integer_products
@pytest.mark.parametrize(("architecture", "placement"), CASES)
def test_encoders_with_products_in_their_attention(architecture: str, placement: str, tmp_path: Path) -> None:
    quantize(architecture, placement, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", encoders.NO_PRODUCTS)
def test_encoders_without_them(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="has no matmul"):
        quantize(architecture, "gemm", tmp_path / "gemm")
    quantize(architecture, "linear", tmp_path / "linear")


@pytest.mark.parametrize("architecture", encoders.OTHER_WEIGHTS)
def test_an_encoder_without_linear_layers_is_refused(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="in linear layers"):
        quantize(architecture, "gemm", tmp_path)
