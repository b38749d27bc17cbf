"""CTranslate2 on a Marian checkpoint: the converter's own reading of the weights, and its own search."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

COMPUTE_TYPES = {"fp32": "float32", "int8": "int8"}
"""CTranslate2's names of precisions; its INT8 has a scale for each row of weights, and of activations."""


class CTranslate2:
    """Translator of token ids; words are ids written as text."""

    def __init__(self, model: Any, folder: Path, precision: str, threads: int) -> None:
        """Convert a ``MarianMTModel`` whose last token is padding, which starts the decoder, and load it."""
        import ctranslate2
        from ctranslate2.converters.transformers import MarianMTLoader

        self.end = model.config.eos_token_id
        self._words = [str(index) for index in range(model.config.vocab_size - 1)]
        # A copy: quantization overwrites the tensors that the specification shares with the model.
        spec = MarianMTLoader().get_model_spec(copy.deepcopy(model))
        spec.register_source_vocabulary(self._words)
        spec.register_target_vocabulary(self._words)
        spec.config.eos_token = spec.config.bos_token = spec.config.unk_token = self._words[self.end]
        spec.config.decoder_start_token = self._words[self.end]
        spec.validate()
        spec.optimize(quantization=COMPUTE_TYPES[precision])
        folder.mkdir()
        spec.save(str(folder))
        self._translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type=COMPUTE_TYPES[precision], intra_threads=threads
        )

    def call(self, source: dict[str, torch.Tensor], beams: int, length: int) -> Callable[[], torch.Tensor]:
        """Return a function that translates a batch by a search of so many new tokens, int64 [B, length]."""
        rows = [
            [self._words[token] for token in ids[mask.bool()].tolist()]
            for ids, mask in zip(source["input_ids"], source["attention_mask"], strict=True)
        ]

        def translate() -> torch.Tensor:
            found = self._translator.translate_batch(
                rows, beam_size=beams, max_decoding_length=length, length_penalty=1.0, max_input_length=0
            )
            ids = torch.full((len(found), length), self.end)
            for row, result in zip(ids, found, strict=True):
                words = [int(word) for word in result.hypotheses[0]]
                row[: len(words)] = torch.tensor(words)
            return ids

        return translate
