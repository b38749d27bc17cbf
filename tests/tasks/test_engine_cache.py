"""Cache of a search through engines: which rows and states the decoder is given at each step."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from qexp.tasks.engine_cache import SourceStates, TargetStates


class Decoder:
    """Appends its tokens, as a state of width 1, to the rows of the cache that it is told to read."""

    inputs = ("decoder_input_ids", "cache_rows", "positions", "attention_mask", "past_key_0", "cross_key_0")
    types: Mapping[str, Any] = MappingProxyType({"past_key_0": np.uint8})

    def run_all(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert set(batch) == set(self.inputs)
        past = batch["past_key_0"][batch["cache_rows"].ravel()]
        tokens = batch["decoder_input_ids"]
        new = tokens.reshape(-1, 1, tokens.shape[2], 1).astype(np.uint8)
        present = np.concatenate([past, new], axis=2)
        return {"logits": present[..., 0].astype(np.float32), "present_key_0": present}


def test_each_beam_goes_on_from_the_row_that_the_search_chose() -> None:
    cross = {"cross_key_0": np.zeros((2, 1, 5, 1), np.float32), "encoder_states": np.zeros((2, 5, 3))}
    source, cache, last = SourceStates(np.ones((2, 5), np.int64), cross), TargetStates(), np.array([0])
    assert len(source) == 2
    assert cache.get_seq_length() == 0
    cache.step(Decoder(), source, np.array([[1], [2], [3], [4]]), last)  # type: ignore[arg-type]
    cache.reorder_cache(torch.tensor([1, 1, 3, 2], dtype=torch.int32))
    logits = cache.step(Decoder(), source, np.array([[5], [6], [7], [8]]), last)  # type: ignore[arg-type]
    assert logits[:, 0].tolist() == [[2, 5], [2, 6], [4, 7], [3, 8]]
    logits = cache.step(Decoder(), source, np.array([[9], [9], [9], [9]]), last)  # type: ignore[arg-type]
    assert logits[:, 0].tolist() == [[2, 5, 9], [2, 6, 9], [4, 7, 9], [3, 8, 9]]
    assert cache.get_seq_length() == 3
