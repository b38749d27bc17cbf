"""Export of translation models to two ONNX files: the encoder runs once per text, the decoder once per token.

``encoder.onnx`` turns ``input_ids`` and ``attention_mask`` [batch, length] into ``encoder_states``
[batch, length, width]. ``decoder.onnx`` takes these, the same ``attention_mask``, and
``decoder_input_ids`` [batch, target_length], all tokens so far: there is no key/value cache between calls.
It returns ``logits`` [batch, kept, vocabulary] at the requested ``positions`` [kept]: a search needs the
last one, a score needs all, and the product with the vocabulary is the largest of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qexp.deploy.onnx.export import AXES, OUTPUT, GraphPart, at_least_two, evaluating, write_graph
from qexp.errors import DeployError

ENCODER = "encoder.onnx"
"""File of the encoder."""
DECODER = "decoder.onnx"
"""File of the decoder."""
STATES = "encoder_states"
"""Output of the encoder and input of the decoder: float32 [batch, length, width]."""
POSITIONS = "positions"
"""Input of the decoder: positions in the target, from 0, whose logits are returned; int64 [kept]."""
TOKENS = ("input_ids", "attention_mask", "decoder_input_ids")
"""Names of the tensors in an example."""


def export_translation(
    model: Any, folder: Path, *, example: Mapping[str, Tensor], opset: int | None = None, packed: bool = True
) -> None:
    """Write the two files of a translation model, and the configuration for a search, into a folder.

    Args:
        model: A ``transformers`` ``AutoModelForSeq2SeqLM`` in floating point or in export form.
        folder: Folder to write to; it must exist.
        example: Integers [batch, length] for each of ``TOKENS``; their sizes do not matter.
        opset: As in :func:`qexp.deploy.onnx.export.write_graph`.
        packed: As in :func:`qexp.deploy.onnx.export.write_graph`.

    Raises:
        DeployError: An input is missing, the model cannot be traced or translated, or is too large.
    """
    missing = [name for name in TOKENS if name not in example]
    if missing:
        raise DeployError(
            f"example: a translator takes {', '.join(TOKENS)}, the example has {sorted(example)}; add "
            f"{missing}"
        )
    device = next(model.parameters()).device
    given = {name: at_least_two(example[name]).to(device, torch.int64) for name in TOKENS}
    with evaluating(model), torch.no_grad():
        encoder = _encoder(model, given)
        write_graph(encoder, folder / ENCODER, opset=opset, packed=packed)
        states = encoder.module(*encoder.inputs.values())
        write_graph(_decoder(model, given, states), folder / DECODER, opset=opset, packed=packed)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def _encoder(model: Any, given: Mapping[str, Tensor]) -> GraphPart:
    inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
    name = f"the encoder of {type(model).__name__}"
    return GraphPart(name, _Encoder(model), inputs=inputs, axes=dict.fromkeys(inputs, AXES), output=STATES)


def _decoder(model: Any, given: Mapping[str, Tensor], states: Tensor) -> GraphPart:
    inputs = {name: given[name] for name in ("decoder_input_ids", "attention_mask")}
    inputs |= {STATES: states, POSITIONS: torch.arange(2, device=states.device)}
    axes: dict[str, tuple[str | None, ...]] = {
        "decoder_input_ids": ("batch", "target_length"), "attention_mask": AXES, STATES: (*AXES, None),
        POSITIONS: ("kept",),
    }  # fmt: skip
    return GraphPart(
        f"the decoder of {type(model).__name__}", _Decoder(model), inputs=inputs, axes=axes, output=OUTPUT
    )


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        encoder = self.model.get_encoder()
        states: Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, decoder_input_ids: Tensor, attention_mask: Tensor, states: Tensor, positions: Tensor
    ) -> Tensor:
        def keep(head: nn.Module, read: tuple[Tensor]) -> tuple[Tensor]:
            return (read[0].index_select(1, positions),)

        # Before the head's own hooks: discarded positions need no quantization.
        handle = self.model.get_output_embeddings().register_forward_pre_hook(keep, prepend=True)
        try:
            logits: Tensor = self.model(
                decoder_input_ids=decoder_input_ids,
                attention_mask=attention_mask,
                encoder_outputs=(states,),
                use_cache=False,
            ).logits
        finally:
            handle.remove()
        return logits
