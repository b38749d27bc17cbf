"""Beam search whose encoder and decoder run in two engines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from qexp.data.tokenization.pairs import IGNORED
from qexp.deploy.engine import Engine, StateEngine, with_states
from qexp.deploy.onnx.export_translation import STATES, cache_argument
from qexp.tasks.engine_cache import SourceStates, TargetStates

CACHE = cache_argument(GenerationMixin.prepare_inputs_for_generation)
"""Name of the cache in ``generate``, which calls ``forward`` with it."""


class EngineEncoder(torch.nn.Module):
    """Encoder for transformers' ``generate`` that runs in an engine."""

    main_input_name = "input_ids"

    def __init__(self, engine: StateEngine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> EncodedTexts:
        """Return the hidden states [B, S, width] of texts [B, S], with the states that a decoder reads."""
        mask = _array(attention_mask)
        outputs = self.engine.run_all({"input_ids": _array(input_ids), "attention_mask": mask})
        encoded = EncodedTexts(last_hidden_state=torch.from_numpy(outputs[STATES]))
        encoded.states = SourceStates(mask, outputs)
        return encoded


class EncodedTexts(BaseModelOutput):
    """Output of the encoder. A search repeats its tensors for the beams, and not its states."""

    states: SourceStates


class EngineTranslator(PreTrainedModel, GenerationMixin):
    """Encoder-decoder model without weights, for ``generate`` and for scoring, computed by two engines.

    Beams, penalties and forced tokens are handled by transformers, as for the model in torch, so that both
    have the same search. Each step computes the newest token alone: keys and values of the others come from
    the step before. All tensors are on the CPU.
    """

    main_input_name = "input_ids"

    def __init__(self, folder: Path, encoder: Engine, decoder: Engine) -> None:
        """Combine two engines into a model.

        Args:
            folder: Folder in which ``export_translation`` wrote the configuration.
            encoder: Engine of its encoder file.
            decoder: Engine of its decoder file.

        Raises:
            DeployError: The runtime of an engine returns no states.
        """
        config = copy.deepcopy(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        config.use_cache = True
        super().__init__(config)
        self.generation_config = GenerationConfig.from_pretrained(folder)
        self.encoder = EngineEncoder(with_states(encoder))
        self.decoder_engine = with_states(decoder)
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

    def generate(self, *inputs: Any, **arguments: Any) -> Any:
        """Search with the caches of engines; arguments are those of transformers' ``generate``."""
        return super().generate(*inputs, **{CACHE: TargetStates()}, **arguments)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: EncodedTexts | None = None,
        logits_to_keep: int = 0,
        **states: Any,
    ) -> Seq2SeqLMOutput:
        """Return the logits of the next tokens.

        Args:
            input_ids: Texts, int64 [B, S]; None with ``encoder_outputs``.
            attention_mask: 1 for tokens of the texts, 0 for padding, [B, S]; None with ``encoder_outputs``.
            decoder_input_ids: Target tokens that are not in the cache, int64 [B * beams, T].
            encoder_outputs: Output of the encoder for the texts.
            logits_to_keep: Number of positions, from the end, to compute logits for; 0 for all. With a
                cache, those of the last position are computed.
            states: The cache of the tokens so far, under the name that transformers gives it; none is empty.
        """
        assert decoder_input_ids is not None
        encoded = encoder_outputs or self.encoder(input_ids, attention_mask)
        searched = CACHE in states
        cache: TargetStates = states.get(CACHE, TargetStates())
        positions = torch.arange(decoder_input_ids.shape[1])[-1 if searched else -logits_to_keep :]
        logits = cache.step(self.decoder_engine, encoded.states, _array(decoder_input_ids), _array(positions))
        return Seq2SeqLMOutput(logits=torch.from_numpy(logits))

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder input for labels [B, T], -100 in padding: shifted right by the start token."""
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = self.generation_config.decoder_start_token_id
        return shifted.masked_fill(shifted == IGNORED, self.generation_config.pad_token_id)


def _array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()
