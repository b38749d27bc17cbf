"""Whole runs of encoders of other architectures: a new head, PTQ, steps of QAT, both runtimes, the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qexp.execution.job import OK
from tests.conftest import save_tokenizer
from tests.support.jobs import QUICK, record_problem, run

RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
TOKENS = {"eos_token_id": 1, "bos_token_id": 1, "cls_token_id": 2, "sep_token_id": 3}
ENCODERS: dict[str, dict[str, Any]] = {
    "DebertaV2": {**RELATIVE, "position_buckets": 8, "max_relative_positions": 16, "type_vocab_size": 0},
    "Deberta": RELATIVE,
    "MPNet": {},
    "RoFormer": {},
    "XLMRoberta": {"type_vocab_size": 1},
    "Camembert": {},
    "Albert": {"embedding_size": 16},
    "NomicBert": {},
    "ModernBert": {"local_attention": 8, **TOKENS},
}
"""Settings of a small encoder besides the common ones."""


def checkpoint(folder: Path, name: str) -> Path:
    """A base model of random weights, without a head, and a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=save_tokenizer(folder), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=160, pad_token_id=0, initializer_range=0.2,
        **ENCODERS[name],
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["gemm", "qdqbert"])
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_goes_through_the_whole_line(name: str, placement: str, tmp_path: Path) -> None:
    words = (
        *QUICK[:-1],
        "task=mrpc",
        "finetune.epochs=0.02",
        "budget.evaluation_rows=40",
        "method.epochs=0.02",
    )
    more = (f"placement={placement}", "deploy=onnx", "deploy.runtimes=[onnxruntime,openvino]")
    code, record = run(*words, *more, "quant=w8a8", f"model.name={checkpoint(tmp_path / name, name)}")
    assert code == OK, record_problem()[:300]
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert {name: engine["gate"]["passed"] for name, engine in record["engines"].items()} == {
        "onnxruntime/int8": True,
        "openvino/int8": True,
    }


def test_a_model_of_one_token_type_is_given_none(tmp_path: Path) -> None:
    words = (*QUICK[:-1], "task=mrpc", "finetune.epochs=0.02", "budget.evaluation_rows=20", "method=ptq")
    folder = checkpoint(tmp_path / "xlmr", "XLMRoberta")
    code, record = run(*words, "deploy=onnx", "quant=w8a8", f"model.name={folder}")
    assert code == OK, record_problem()[:300]
    assert record["parity"]["passed"]
