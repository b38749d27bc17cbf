"""transformers' Marian with the weights of NeurST's Transformer, and the places of NeurST's quantizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

from tests.conformance import inputs
from tests.conformance.inputs import Array

SIZES = inputs.TRANSLATOR
SHARED = "shared_symbol_modality/shared"
Sites = frozenset[tuple[str, str]]
"""Kinds and modules that one range belongs to."""
TABLES: Sites = frozenset(
    {
        ("linear.weight", "lm_head"),
        ("embedding.weight", "model.shared"),
        ("embedding.weight", "model.encoder.embed_tokens"),
        ("embedding.weight", "model.decoder.embed_tokens"),
    }
)


def config() -> MarianConfig:
    """Return the configuration of the random Transformer."""
    return MarianConfig(
        vocab_size=SIZES["vocabulary"],
        d_model=SIZES["width"],
        encoder_layers=SIZES["layers"],
        decoder_layers=SIZES["layers"],
        encoder_attention_heads=SIZES["heads"],
        decoder_attention_heads=SIZES["heads"],
        encoder_ffn_dim=SIZES["inner"],
        decoder_ffn_dim=SIZES["inner"],
        dropout=0.0,
        activation_function="relu",
        scale_embedding=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        max_position_embeddings=32,
        attn_implementation="eager",
    )


def attentions() -> dict[str, str]:
    """Return Marian's attention modules by the prefix of NeurST's names."""
    found = {}
    for side in ("Encoder", "Decoder"):
        for layer in range(SIZES["layers"]):
            prefix = f"Transformer{side}/layer_{layer}"
            module = f"model.{side.lower()}.layers.{layer}"
            found[f"{prefix}/self_attention_prepost_wrapper/self_attention"] = f"{module}.self_attn"
            if side == "Decoder":
                cross = f"{prefix}/encdec_attention_prepost_wrapper/encdec_attention"
                found[cross] = f"{module}.encoder_attn"
    return found


def linears() -> dict[str, list[str]]:
    """Return Marian's linear layers by NeurST's names; several where their columns are one matrix."""
    found = {}
    for name, module in attentions().items():
        parts = {"q_transform": "q", "kv_transform": "kv"} if "encdec" in name else {"qkv_transform": "qkv"}
        found |= {
            f"{name}/{part}": [f"{module}.{each}_proj" for each in letters] for part, letters in parts.items()
        }
        found[f"{name}/output_transform"] = [f"{module}.out_proj"]
    for side in ("Encoder", "Decoder"):
        for layer in range(SIZES["layers"]):
            inner = f"Transformer{side}/layer_{layer}/ffn_prepost_wrapper/ffn"
            module = f"model.{side.lower()}.layers.{layer}"
            found |= {f"{inner}/dense1": [f"{module}.fc1"], f"{inner}/dense2": [f"{module}.fc2"]}
    return found


def norms() -> dict[str, str]:
    """Return Marian's norms by the prefix of NeurST's names."""
    found = {}
    for side in ("Encoder", "Decoder"):
        for layer in range(SIZES["layers"]):
            prefix = f"Transformer{side}/layer_{layer}"
            module = f"model.{side.lower()}.layers.{layer}"
            found[f"{prefix}/self_attention_prepost_wrapper"] = f"{module}.self_attn_layer_norm"
            found[f"{prefix}/ffn_prepost_wrapper"] = f"{module}.final_layer_norm"
            if side == "Decoder":
                found[f"{prefix}/encdec_attention_prepost_wrapper"] = f"{module}.encoder_attn_layer_norm"
    return found


def marian() -> Any:
    """Return the random Transformer, without positions, in evaluation mode."""
    model = MarianMTModel(config()).eval()
    weights = {name: torch.from_numpy(value) for name, value in inputs.translator_weights().items()}
    state: dict[str, Tensor] = {
        "model.shared.weight": weights[f"{SHARED}/weights"],
        "final_logits_bias": weights[f"{SHARED}/bias"][None],
    }
    for name, modules in linears().items():
        kernels = weights[f"{name}/kernel"].chunk(len(modules), dim=1)
        biases = weights[f"{name}/bias"].chunk(len(modules))
        for module, kernel, bias in zip(modules, kernels, biases, strict=True):
            state |= {f"{module}.weight": kernel.T, f"{module}.bias": bias}
    for name, module in norms().items():
        state |= {
            f"{module}.weight": weights[f"{name}/ln/gamma"],
            f"{module}.bias": weights[f"{name}/ln/beta"],
        }
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unexpected, unexpected
    with torch.no_grad():
        for side in (model.model.encoder, model.model.decoder):
            side.embed_positions.weight.zero_()
    model.tie_weights()
    return model


@torch.no_grad()
def logits(model: Any) -> Array:
    """Return the logits of the common batch, [rows, tokens, vocabulary]."""
    batch = inputs.translator_batch()
    result: Array = model(
        input_ids=torch.from_numpy(batch["source"]),
        attention_mask=torch.from_numpy(1 - batch["padding"]).long(),
        decoder_input_ids=torch.from_numpy(batch["target"]),
        use_cache=False,
    ).logits.numpy()
    return result


def sites_of(name: str) -> Sites:
    """Return the sites of the range of a clip value of NeurST."""
    owner, _, last = name.rpartition("/")
    if name == f"{SHARED}/weights_clip_max":
        return TABLES
    if last == "kernel_clip_max":
        return frozenset(("linear.weight", module) for module in linears()[owner])
    if last == "dense1_activ_clip_max":
        module = linears()[f"{owner}/dense1"][0].removesuffix("fc1")
        return frozenset({("activation.output", f"{module}activation_fn")})
    if owner in attentions():
        return frozenset({("attention.context", f"{attentions()[owner]}.out_proj")})
    attention, part = attentions()[owner.rpartition("/")[0]], owner.rpartition("/")[2]
    if part == "output_transform":
        return frozenset({("attention.output", f"{attention}.out_proj")})
    kinds = {"q": "matmul.query", "k": "matmul.key", "v": "matmul.value"}
    return frozenset((kinds[letter], attention) for letter in part.removesuffix("_transform"))
