"""Tests of pooling: embeddings against a computation text by text, and what is saved of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from qexp.errors import ModelError
from qexp.models.loading import load_embedder, load_saved, logits_of, model_inputs, save
from tests.conftest import ARCHITECTURES

TEXTS = ([2, 50, 60, 3], [2, 70, 3], [2, 50, 51, 52, 53, 54, 3])


def padded() -> dict[str, torch.Tensor]:
    length = max(map(len, TEXTS))
    ids = torch.tensor([text + [0] * (length - len(text)) for text in TEXTS])
    mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in TEXTS])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def embeddings(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return logits_of(model(**{name: padded()[name] for name in model_inputs(model)}))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_are_those_of_each_text_by_itself(
    architecture: str, pooling: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = AutoModel.from_pretrained(tiny_models(architecture)).eval()
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            (states,) = plain(input_ids=torch.tensor([text])).last_hidden_state
        expected.append(states.mean(0) if pooling == "mean" else states[0])
    wanted = torch.nn.functional.normalize(torch.stack(expected), dim=-1)

    model = load_embedder(tiny_models(architecture), pooling)
    torch.testing.assert_close(embeddings(model), wanted, rtol=1e-4, atol=1e-5)
    save(model, tmp_path / "saved")
    assert torch.equal(embeddings(load_saved(tmp_path / "saved")), embeddings(model))
    assert not any("pooler" in name for name in model.state_dict())


def test_a_model_without_a_pooling_is_left_alone(tiny_bert: Path) -> None:
    model = load_saved(tiny_bert)
    assert model.pooler is not None
    assert "sentence_embedding" not in model(**padded())


def test_a_checkpoint_that_lacks_weights_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"lacks \d+ weights"):
        load_embedder(tmp_path, "mean")
