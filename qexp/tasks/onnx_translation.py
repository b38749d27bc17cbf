"""Beam search whose encoder and decoder run in two engines."""

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
    """Encoder for transformers' ``generate`` that runs in an engine."""

    main_input_name = "input_ids"

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> BaseModelOutput:
        """Return the hidden states [B, S, width] of texts [B, S]."""
        states = self.engine.run({"input_ids": _array(input_ids), "attention_mask": _array(attention_mask)})
        return BaseModelOutput(last_hidden_state=torch.from_numpy(np.asarray(states)))


class EngineTranslator(PreTrainedModel, GenerationMixin):
    """Encoder-decoder model without weights, for ``generate`` and for scoring, computed by two engines.

    Beams, penalties and forced tokens are handled by transformers. Each step of a search recomputes all
    tokens so far, as the decoder's file has no cache between calls. All tensors are on the CPU.
    """

    main_input_name = "input_ids"

    def __init__(self, folder: Path, encoder: Engine, decoder: Engine) -> None:
        """Combine two engines into a model.

        Args:
            folder: Folder in which ``export_translation`` wrote the configuration.
            encoder: Engine of its encoder file.
            decoder: Engine of its decoder file.
        """
        config = copy.deepcopy(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        config.use_cache = False
        super().__init__(config)
        self.generation_config = GenerationConfig.from_pretrained(folder)
        self.encoder = EngineEncoder(encoder)
        self.decoder_engine = decoder
        self.train(False)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the engines' outputs."""
        return torch.float32

    def get_encoder(self, *_: Any, **__: Any) -> EngineEncoder:
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
        """Return the logits of the next tokens.

        Args:
            input_ids: Texts, int64 [B, S]; None with ``encoder_outputs``.
            attention_mask: 1 for tokens of the texts, 0 for padding, [B, S].
            decoder_input_ids: Target tokens so far, int64 [B, T].
            encoder_outputs: Output of the encoder for the texts.
            logits_to_keep: Number of positions, from the end, to compute logits for; 0 for all.
        """
        assert attention_mask is not None
        assert decoder_input_ids is not None
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        positions = torch.arange(decoder_input_ids.shape[1])[-logits_to_keep:]
        logits = self.decoder_engine.run(
            {
                "decoder_input_ids": _array(decoder_input_ids),
                "attention_mask": _array(attention_mask),
                STATES: _array(encoder_outputs[0]),
                POSITIONS: _array(positions),
            }
        )
        return Seq2SeqLMOutput(logits=torch.from_numpy(np.asarray(logits)))

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder input for labels [B, T], -100 in padding: shifted right by the start token."""
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = self.generation_config.decoder_start_token_id
        return shifted.masked_fill(shifted == IGNORED, self.generation_config.pad_token_id)


def _array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()
