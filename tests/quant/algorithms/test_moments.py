"""Moments of inputs compared with numpy, on tokens that are collected in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qexp.errors import QuantizationError
from qexp.quant.algorithms.moments import InputMomentsCounter, MomentsFile
from tests.support import sequence_models, tiny_models


def gathered(model: Any, batch: dict[str, torch.Tensor], layer: str, mask: torch.Tensor) -> np.ndarray:
    """Tokens that a layer reads, without padding."""
    observed: list[np.ndarray] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(
        lambda module, args: observed.append(args[0].numpy())
    )
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return observed[0][mask.numpy() != 0] if observed[0].ndim == 3 else observed[0]


@pytest.mark.parametrize("gram", [True, False])
def test_moments_are_those_of_numpy_without_padding(gram: bool, tmp_path: Path) -> None:
    model, batch = tiny_models.build("bert"), tiny_models.batch()
    moments = InputMomentsCounter(model, gram=gram)
    for part in (slice(0, 2), slice(2, 3)):
        own = {name: tensor[part] for name, tensor in batch.items()}
        with torch.inference_mode(), moments.observing(own["attention_mask"]):
            model(**own)
    moments.save(tmp_path / "moments.safetensors")
    result = MomentsFile(tmp_path / "moments.safetensors")
    assert len(result) == 14  # every linear layer, also those that share an input
    for layer in result:
        tokens = gathered(model, batch, layer, batch["attention_mask"]).astype(np.float64)
        moment = result[layer]
        np.testing.assert_allclose(moment.mean, tokens.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moment.largest, abs(tokens).max(0), rtol=1e-4, atol=1e-6)
        assert (moment.gram is not None) == gram
        if moment.gram is not None:
            expected = tokens.T @ tokens / len(tokens)
            np.testing.assert_allclose(moment.gram, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def test_layers_with_one_input_share_it(tmp_path: Path) -> None:
    model = tiny_models.build("bert")
    moments = InputMomentsCounter(model, gram=True)
    with torch.no_grad(), moments.observing():
        model(**tiny_models.batch())
    moments.save(tmp_path / "moments.safetensors")
    layers = MomentsFile(tmp_path / "moments.safetensors").layers
    attention = "bert.encoder.layer.1.attention.self"
    assert len({layers[f"{attention}.{name}"] for name in ("query", "key", "value")}) == 1
    assert len(set(layers.values())) == 14 - 2 * 2


def test_padding_of_a_decoder_is_its_own(tmp_path: Path) -> None:
    model, batch = sequence_models.build("marian"), sequence_models.batch(source=7, target=6)
    moments = InputMomentsCounter(model, gram=False)
    with torch.no_grad(), moments.observing(batch["attention_mask"], batch["decoder_attention_mask"]):
        model(**batch)
    moments.save(tmp_path / "moments.safetensors")
    result = MomentsFile(tmp_path / "moments.safetensors")
    for layer, mask in (
        ("model.encoder.layers.1.fc1", "attention_mask"),
        ("model.decoder.layers.1.fc1", "decoder_attention_mask"),
        ("model.decoder.layers.1.encoder_attn.v_proj", "attention_mask"),
    ):
        tokens = gathered(model, batch, layer, batch[mask])
        np.testing.assert_allclose(result[layer].mean, tokens.mean(0), rtol=1e-4, atol=1e-5)


def test_no_hook_stays_and_what_is_not_finite_is_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    moments = InputMomentsCounter(model, gram=True, example=(torch.ones(1, 3),))
    with moments.observing():
        model(torch.tensor([[1.0, 2.0, torch.inf]]))
    assert not model[0]._forward_pre_hooks
    with pytest.raises(QuantizationError, match="input of 0: NaN or infinite"):
        moments.save(tmp_path / "moments.safetensors")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "moments.safetensors"
    path.write_bytes(content)
    with pytest.raises(QuantizationError, match="not a file of moments"):
        MomentsFile(path)
