"""Keys and values of a search whose encoder and decoder run in engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache

from qexp.deploy.engine import StateEngine
from qexp.deploy.onnx.export_translation import CACHE_ROWS, CROSS, PAST, POSITIONS, PRESENT

States = Mapping[str, NDArray[Any]]
"""Keys and values by the names of an engine's outputs."""


class SourceStates:
    """What a decoder reads of texts: their mask, and keys and values of its cross attention."""

    def __init__(self, mask: NDArray[Any], outputs: States) -> None:
        """Keep the outputs of an encoder's engine for a mask [sentences, length]."""
        self.inputs = {name: array for name, array in outputs.items() if name.startswith(f"{CROSS}_")}
        self.inputs["attention_mask"] = mask

    def __len__(self) -> int:
        """Return the number of sentences."""
        return len(self.inputs["attention_mask"])


class TargetStates(Cache):
    """Cache of the target: keys and values of all tokens so far, a row for each beam of each sentence.

    Beams that a search exchanges are not copied: the next call of the decoder reads their rows.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._states: States = {}
        self._rows: NDArray[Any] | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens in the cache."""
        return next(iter(self._states.values())).shape[2] if self._states else 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Choose the row of the cache that each row of the next call goes on from, int64 [rows]."""
        self._rows = beam_idx.cpu().numpy().astype(np.int64)

    def step(
        self, decoder: StateEngine, source: SourceStates, tokens: NDArray[Any], positions: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Run the decoder on tokens, of which :meth:`feed` tells, and keep the cache that it returns.

        Returns:
            Logits [sentences * beams, kept, vocabulary].
        """
        outputs = decoder.run_all(self.feed(decoder, source, tokens, positions))
        self._states = {_past(name): array for name, array in outputs.items() if _past(name)}
        self._rows = None
        return outputs["logits"]

    def feed(
        self, decoder: StateEngine, source: SourceStates, tokens: NDArray[Any], positions: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Return the inputs of the decoder for tokens that are not in the cache.

        Args:
            decoder: Engine of the decoder.
            source: States of the texts.
            tokens: Tokens [sentences * beams, T], the beams of a sentence one after another.
            positions: Positions of the logits that are returned, int64 [kept].
        """
        beams = tokens.reshape(len(source), -1, tokens.shape[1])
        rows = np.arange(len(tokens)) if self._rows is None else self._rows
        states = self._states or _empty(decoder, source, len(tokens))
        return {
            "decoder_input_ids": beams,
            CACHE_ROWS: rows.reshape(beams.shape[:2]),
            POSITIONS: positions,
            **source.inputs,
            **states,
        }


def _empty(decoder: StateEngine, source: SourceStates, rows: int) -> States:
    """Return a cache without tokens, whose heads have the sizes of those of cross attention."""
    names = [name for name in decoder.inputs if name.startswith(f"{PAST}_")]
    shapes = {name: source.inputs[name.replace(PAST, CROSS, 1)].shape for name in names}
    return {
        name: np.zeros((rows, heads, 0, width), decoder.types[name])
        for name, (_, heads, _, width) in shapes.items()
    }


def _past(name: str) -> str:
    """Return the input of the next call that an output is, "" for none."""
    return name.replace(PRESENT, PAST, 1) if name.startswith(f"{PRESENT}_") else ""
