"""A search for translations whose encoder and decoder are two engines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from qexp.data.tokenization.pairs import IGNORED
from qexp.deploy.engine import Engine
from qexp.deploy.onnx.export_translation import POSITIONS, STATES


class EngineEncoder(torch.nn.Module):
    """Takes an encoder's place in transformers' ``generate``."""

    main_input_name = "input_ids"

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> BaseModelOutput:
        """States [B, S, width] of texts [B, S]."""
        states = self.engine.run({"input_ids": _array(input_ids), "attention_mask": _array(attention_mask)})
        return BaseModelOutput(last_hidden_state=torch.from_numpy(np.asarray(states)))


class EngineTranslator(PreTrainedModel, GenerationMixin):
    """A translator without weights: what ``generate`` and a score need, computed by two engines.

    Beams, penalties and forced tokens are transformers' own. Each step of a search computes all words so
    far anew, as the decoder's file keeps nothing between calls. Everything lies on the CPU.
    """

    main_input_name = "input_ids"

    def __init__(self, folder: Path, encoder: Engine, decoder: Engine) -> None:
        """Put two engines together.

        Args:
            folder: Where ``export_translation`` wrote the configuration.
            encoder: Made of its encoder.
            decoder: Made of its decoder.
        """
        config = copy.deepcopy(AutoConfig.from_pretrained(folder))
        config.use_cache = False
        super().__init__(config)
        self.generation_config = GenerationConfig.from_pretrained(folder)
        self.encoder = EngineEncoder(encoder)
        self.decoder_engine = decoder
        self.train(False)

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Type of what the engines compute."""
        return torch.float32

    def get_encoder(self, *_: Any, **__: Any) -> EngineEncoder:
        """What turns texts into states."""
        return self.encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Logits of the next words.

        Args:
            input_ids: Texts, int64 [B, S]; None with ``encoder_outputs``.
            attention_mask: 1 for their tokens, 0 for padding, [B, S].
            decoder_input_ids: Words so far, int64 [B, T].
            encoder_outputs: What the encoder gave for the texts.
            logits_to_keep: Of how many words, from the end; 0 is all.
        """
        assert attention_mask is not None
        assert decoder_input_ids is not None
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        positions = torch.arange(decoder_input_ids.shape[1])[-logits_to_keep:]
        logits = self.decoder_engine.run({
            "decoder_input_ids": _array(decoder_input_ids), "attention_mask": _array(attention_mask),
            STATES: _array(encoder_outputs[0]), POSITIONS: _array(positions),
        })  # fmt: skip
        return Seq2SeqLMOutput(logits=torch.from_numpy(np.asarray(logits)))

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What a decoder reads to predict the labels [B, T], -100 in padding: shifted, after the start."""
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = self.generation_config.decoder_start_token_id
        return shifted.masked_fill(shifted == IGNORED, self.generation_config.pad_token_id)


def _array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()
