"""Export of translation models to two ONNX files: the encoder runs once per text, the decoder once per token.

``encoder.onnx`` turns ``input_ids`` and ``attention_mask`` [sentences, length] into ``encoder_states``
[sentences, length, width], and into ``cross_key_N`` and ``cross_value_N`` [sentences, heads, length, d] for
each layer N of the decoder: what its cross attention reads, computed once for each sentence.

``decoder.onnx`` takes these, the same ``attention_mask``, and

- ``decoder_input_ids`` [sentences, beams, target_length]: tokens of the target that are not in the cache;
- ``past_key_N`` and ``past_value_N`` [cached_rows, heads, past_length, d]: the cache, perhaps of length 0;
- ``cache_rows`` [sentences, beams]: the row of the cache that each beam goes on from;
- ``positions`` [kept]: which of the tokens' logits are returned. A search needs the last one, a score needs
  all, and the product with the vocabulary is the largest of all.

It returns ``logits`` [rows, kept, vocabulary], where a row is a beam of a sentence, and ``present_key_N`` and
``present_value_N`` [rows, heads, past_length + target_length, d]. So one file makes the first step, every
further step, and a score of a whole target.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from qexp.deploy.onnx.beam_attention import LOWEST, folding_beams, mark
from qexp.deploy.onnx.export import OUTPUT, GraphPart, at_least_two, evaluating, write_graph
from qexp.deploy.onnx.integer_cache import store_integers
from qexp.errors import DeployError

ENCODER = "encoder.onnx"
"""File of the encoder."""
DECODER = "decoder.onnx"
"""File of the decoder."""
STATES = "encoder_states"
"""First output of the encoder: float32 [sentences, length, width]."""
POSITIONS = "positions"
"""Input of the decoder: positions in ``decoder_input_ids``, from 0, whose logits are returned."""
CACHE_ROWS = "cache_rows"
"""Input of the decoder: the row of the cache that each beam goes on from."""
TOKENS = ("input_ids", "attention_mask", "decoder_input_ids")
"""Names of the tensors in an example."""
CROSS, PAST, PRESENT = "cross", "past", "present"
"""First words of the names of keys and values: of the source, of the target so far, and with new tokens."""

SOURCE_AXES = ("sentences", "length")
KEPT = 2
"""Number of positions in the example of the tracer."""


def export_translation(
    model: Any,
    folder: Path,
    *,
    example: Mapping[str, Tensor],
    opset: int | None = None,
    packed: bool = True,
    cache_bits: int = 32,
) -> None:
    """Write the two files of a translation model, and the configuration for a search, into a folder.

    Args:
        model: A ``transformers`` ``AutoModelForSeq2SeqLM`` in floating point or in export form.
        folder: Folder to write to; it must exist.
        example: Integers [batch, length] for each of ``TOKENS``; their sizes do not matter.
        opset: As in :func:`qexp.deploy.onnx.export.write_graph`.
        packed: As in :func:`qexp.deploy.onnx.export.write_graph`.
        cache_bits: 32, or 8 for keys and values that have a quantizer of 8 bits to leave and enter the files
            as its integers (:mod:`qexp.deploy.onnx.integer_cache`).

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
    with evaluating(model), folding_beams(model), torch.no_grad():
        source = {name: given[name] for name in ("input_ids", "attention_mask")}
        cross = _Encoder(model)(*source.values())[1:]
        write_graph(_encoder(model, source, cross), folder / ENCODER, opset=opset, packed=packed)
        _Encoder(model)(*source.values())  # quantizers forget the tracer's tensors after a forward pass
        write_graph(_decoder(model, given, cross), folder / DECODER, opset=opset, packed=packed)
    if cache_bits == 8:
        store_integers(folder / ENCODER, folder / DECODER)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def state_names(kind: str, layers: int) -> list[str]:
    """Return the names of keys and values of so many layers: ``cross_key_0``, ``cross_value_0`` and so on."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in ("key", "value")]


def _encoder(model: Any, source: Mapping[str, Tensor], cross: Sequence[Tensor]) -> GraphPart:
    names = state_names(CROSS, len(cross) // 2)
    return GraphPart(
        f"the encoder of {type(model).__name__}",
        _Encoder(model),
        inputs=source,
        axes=dict.fromkeys(source, SOURCE_AXES),
        output=STATES,
        more=tuple(names),
        output_axes={STATES: (*SOURCE_AXES, None), **dict.fromkeys(names, _state_axes(*SOURCE_AXES))},
    )


def _decoder(model: Any, given: Mapping[str, Tensor], cross: Sequence[Tensor]) -> GraphPart:
    target, layers = given["decoder_input_ids"], len(cross) // 2
    beams = torch.stack([target, target], dim=1)
    rows = torch.zeros_like(beams[..., 0])
    past = [each[:, :, :2].repeat(2, 1, 1, 1) for each in cross]
    inputs = {
        "decoder_input_ids": beams, CACHE_ROWS: rows, "attention_mask": given["attention_mask"],
        POSITIONS: torch.arange(KEPT, device=target.device),
        **dict(zip(state_names(PAST, layers), past, strict=True)),
        **dict(zip(state_names(CROSS, layers), cross, strict=True)),
    }  # fmt: skip
    axes: dict[str, tuple[str | None, ...]] = {
        "decoder_input_ids": ("sentences", "beams", "target_length"), CACHE_ROWS: ("sentences", "beams"),
        "attention_mask": SOURCE_AXES, POSITIONS: ("kept",),
        **dict.fromkeys(state_names(PAST, layers), _state_axes("cached_rows", "past_length")),
        **dict.fromkeys(state_names(CROSS, layers), _state_axes(*SOURCE_AXES)),
    }  # fmt: skip
    present = state_names(PRESENT, layers)
    return GraphPart(
        f"the decoder of {type(model).__name__}",
        _Decoder(model, layers),
        inputs=inputs,
        axes=axes,
        output=OUTPUT,
        more=tuple(present),
        output_axes={
            OUTPUT: ("rows", "kept", None),
            **dict.fromkeys(present, _state_axes("rows", "present_length")),
        },
    )


def _state_axes(rows: str, length: str) -> tuple[str | None, ...]:
    return rows, None, length, None


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        # Any token will do: what it computes besides the cache is taken out of the graph.
        result = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=input_ids[:, :1],
            use_cache=True,
            **{cache_argument(self.model.forward): cache},
        )
        return result.encoder_last_hidden_state, *_states(cache.cross_attention_cache)


class _Decoder(nn.Module):
    def __init__(self, model: Any, layers: int) -> None:
        super().__init__()
        self.model = model
        self.layers = layers

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tokens, rows, mask, positions, *states = inputs
        past = [each.index_select(0, rows.reshape(-1)) for each in states[: 2 * self.layers]]
        cross = states[2 * self.layers :]
        for key in cross[::2]:
            mark(key, *rows.shape)
        cache = EncoderDecoderCache(_filled(past), _filled(cross))
        logits = self._logits(tokens.reshape(-1, tokens.shape[-1]), mask, positions, cache)
        return logits, *_states(cache.self_attention_cache)

    def _logits(self, tokens: Tensor, mask: Tensor, positions: Tensor, cache: EncoderDecoderCache) -> Tensor:
        def keep(head: nn.Module, read: tuple[Tensor]) -> tuple[Tensor]:
            return (read[0].index_select(1, positions),)

        # Before the head's own hooks: discarded positions need no quantization.
        handle = self.model.get_output_embeddings().register_forward_pre_hook(keep, prepend=True)
        try:
            logits: Tensor = self.model(
                decoder_input_ids=tokens,
                attention_mask=_added(mask),
                encoder_outputs=(_states(cache.cross_attention_cache)[0],),  # not read: the cache is full
                use_cache=True,
                **{cache_argument(self.model.forward): cache},
            ).logits
        finally:
            handle.remove()
        return logits


def cache_argument(function: Any) -> str:
    """Return the name of a function's argument for a cache, which was ``past_key_values`` in transformers."""
    return "cache" if "cache" in inspect.signature(function).parameters else "past_key_values"


def _added(mask: Tensor) -> Tensor:
    """Return a mask [B, S] as numbers that are added to scores, float32 [B, 1, 1, S]."""
    return mask.eq(0)[:, None, None].float() * LOWEST


def _filled(states: Sequence[Tensor]) -> DynamicCache:
    """Return a cache that holds keys and values, and no copies of them."""
    cache = DynamicCache()
    for index, (key, value) in enumerate(zip(states[::2], states[1::2], strict=True)):
        cache.update(key, value, index)  # makes the layer, with a copy
        layer: Any = cache.layers[index]
        layer.keys, layer.values = key, value
    return cache


def _states(cache: Any) -> list[Tensor]:
    return [each for layer in cache.layers for each in (layer.keys, layer.values)]
