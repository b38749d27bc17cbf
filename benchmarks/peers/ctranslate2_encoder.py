"""CTranslate2 on a BERT: the converter's own reading of the weights, and its encoder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.ctranslate2 import COMPUTE_TYPES


class CTranslate2Encoder:
    """Encoder of token ids, with the classifier of the model behind its pooler."""

    def __init__(self, model: Any, folder: Path, precision: str, threads: int) -> None:
        """Convert a ``BertForSequenceClassification`` and load it."""
        import ctranslate2
        from ctranslate2.converters.transformers import BertLoader

        # A copy: quantization overwrites the tensors that the specification shares with the model.
        encoder, words = copy.deepcopy(model.bert), [str(index) for index in range(model.config.vocab_size)]
        encoder.config.position_embedding_type = "absolute"  # transformers 5 has no other, and no field
        spec = BertLoader().get_model_spec(encoder)
        spec.register_vocabulary(words)
        spec.config.unk_token, spec.config.layer_norm_epsilon = words[0], model.config.layer_norm_eps
        spec.validate()
        spec.optimize(quantization=COMPUTE_TYPES[precision])
        folder.mkdir()
        spec.save(str(folder))
        kind = COMPUTE_TYPES[precision]
        self._encoder = ctranslate2.Encoder(
            str(folder), device="cpu", compute_type=kind, intra_threads=threads
        )
        self._weight = model.classifier.weight.detach().numpy().T
        self._bias = model.classifier.bias.detach().numpy()

    def run(self, batch: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return logits [rows, labels]; it pads rows of different lengths itself."""
        rows = [
            ids[mask > 0].tolist()
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        pooled = np.array(self._encoder.forward_batch(rows).pooler_output)
        logits: NDArray[np.float32] = pooled @ self._weight + self._bias
        return logits
