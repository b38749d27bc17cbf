"""Products and residual adds that functions compute, in encoders without the attention interface."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from qexp.config import MaxCalibrator, Placement, QuantizationConfig
from qexp.errors import QuantizationError
from qexp.quant.insertion.attentions import functions_of
from qexp.quant.insertion.function_calls import find_calls
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.insertion.sites import RESIDUAL_OPERANDS, norms
from qexp.quant.quantizer_mode import QuantizerMode
from tests.support import encoders, tiny_models
from tests.support.tiny_models import GEMM, QDQBERT

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "num_labels": 2, "pad_token_id": 0,
}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
OWN = {
    "DebertaV2": {**RELATIVE, "position_buckets": 8, "max_relative_positions": 16, "type_vocab_size": 0},
    "Deberta": RELATIVE,
    "MPNet": {},
    "RoFormer": {},
}
"""Encoders whose attention multiplies in its own ``forward``, with settings of a small one."""
TOKENS = {"eos_token_id": 1, "bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2}
INTERFACE: dict[str, dict[str, Any]] = {
    "XLMRoberta": {}, "Camembert": {}, "Albert": {"embedding_size": 16},
    "ModernBert": {"local_attention": 8, **TOKENS},
}  # fmt: skip
"""Encoders with that interface, whose residual adds are in no table."""


def build(name: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL, **{**OWN, **INTERFACE}[name])
    config._attn_implementation = "eager"
    return getattr(transformers, f"{name}ForSequenceClassification")(config).eval()


def batch() -> dict[str, torch.Tensor]:
    """Two rows, of which the second has two tokens of padding."""
    ids = torch.arange(5, 21).view(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": torch.where(mask == 1, ids, 0), "attention_mask": mask}


def calibrated(model: Any, placement: Placement = GEMM) -> QuantizedModel:
    quantization = insert(model, QuantizationConfig(placement=placement))
    with torch.no_grad(), quantization.observing(batch()["attention_mask"]):
        model(**batch())
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    return quantization


@pytest.mark.parametrize("placement", [GEMM, QDQBERT], ids=["gemm", "qdqbert"])
@pytest.mark.parametrize("name", [*OWN, *INTERFACE])
def test_every_encoder_is_quantized_and_off_is_the_model_itself(name: str, placement: Placement) -> None:
    model = build(name)
    with torch.no_grad():
        before = model(**batch()).logits
        quantization = calibrated(model, placement)
        assert torch.equal(model(**batch()).logits, before)
        quantization.freeze()
        quantized = model(**batch()).logits
        quantization.off()
        assert torch.equal(model(**batch()).logits, before)
        quantization.remove()
        assert torch.equal(model(**batch()).logits, before)
    assert bool(torch.isfinite(quantized).all()) and not torch.equal(quantized, before)
    assert {site.kind for site in quantization.sites} == set(placement.sites)


@pytest.mark.parametrize("name", [*OWN, *INTERFACE])
def test_the_same_calls_are_tapped_with_and_without_padding(name: str) -> None:
    """A mask is added where there is padding only, so that sums of scores must not be counted."""
    model = build(name)
    quantization = calibrated(model, QDQBERT)
    quantization.freeze()
    shapes: list[dict[str, list[int]]] = []
    for mask in (batch()["attention_mask"], torch.ones(2, 8, dtype=torch.int64)):
        seen: dict[str, list[int]] = {}
        hooks = [
            each.register_forward_hook(
                lambda _, args, __, key=key, seen=seen: seen.setdefault(key, []).append(args[0].dim())
            )
            for key, each in quantization.quantizers.items()
        ]
        with torch.no_grad():
            model(input_ids=batch()["input_ids"], attention_mask=mask)
        for hook in hooks:
            hook.remove()
        shapes.append(seen)
    assert shapes[0] == shapes[1]
    added = {site.quantizer for site in quantization.sites if site.kind == "residual.input"}
    assert {dim for key in added for dim in shapes[0][key]} == {3}


@pytest.mark.parametrize("name", OWN)
def test_every_product_of_attention_has_its_operands(name: str) -> None:
    quantization = calibrated(build(name))
    queries = [site.module for site in quantization.sites if site.kind == "matmul.query"]
    relative = name.startswith("Deberta")
    assert len(queries) == 2 * (3 if relative else 1)
    assert [module.endswith(("matmul_1", "matmul_2")) for module in queries].count(True) == 4 * relative
    for kind in ("matmul.probs", "matmul.value"):
        assert sum(site.kind == kind for site in quantization.sites) == 2


@pytest.mark.parametrize("name", OWN)
def test_operands_are_those_of_the_products(name: str) -> None:
    """Each quantizer's output, and nothing else, is what a product of attention multiplies."""
    model = build(name)
    quantization = calibrated(model)
    for quantizer in quantization.quantizers.values():
        quantizer.switch(QuantizerMode.FROZEN)
    products = {site.quantizer for site in quantization.sites if site.kind.startswith("matmul.")}
    outputs: dict[int, str] = {}
    kept = []

    def keep(name: str, output: Any) -> None:
        kept.append(output)
        outputs[output.untyped_storage().data_ptr()] = name

    for each in products:
        quantization.quantizers[each].register_forward_hook(lambda _, __, y, each=each: keep(each, y))
    multiplied: list[str | None] = []

    class Multiplied(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ in ("matmul", "bmm", "__matmul__"):
                multiplied.extend(outputs.get(each.untyped_storage().data_ptr()) for each in args[:2])
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Multiplied():
        model(**batch())
    assert None not in multiplied
    assert set(multiplied) == products


@pytest.mark.parametrize("name", ["DebertaV2", "MPNet"])
def test_statistics_never_read_padding(name: str) -> None:
    """What padding holds changes no statistics, also of heads that are folded into the batch."""
    seen = []
    for filler in (0, 37):
        model, tensors = build(name), batch()
        tensors["input_ids"] = torch.where(tensors["attention_mask"] == 1, tensors["input_ids"], filler)
        quantization = insert(model, QuantizationConfig(placement=GEMM))
        with torch.no_grad(), quantization.observing(tensors["attention_mask"]):
            model(**tensors)
        statistics = quantization.statistics()
        seen.append({key: [*statistics[key].lows, *statistics[key].highs] for key in statistics})
    assert seen[0].keys() == seen[1].keys()
    assert all(seen[0][key] == pytest.approx(seen[1][key], abs=1e-6) for key in seen[0])


@pytest.mark.parametrize("name", ["DebertaV2", "MPNet", "ModernBert"])
def test_one_step_of_training_reaches_every_range_and_weight(name: str) -> None:
    model = build(name)
    quantization = calibrated(model, QDQBERT)
    quantization.learn()
    model.train()
    model(**batch()).logits.square().sum().backward()
    missing = [
        each for each, quantizer in quantization.quantizers.items() if quantizer.log_scale.grad is None
    ]
    assert not missing


@pytest.mark.parametrize("architecture", sorted(set(RESIDUAL_OPERANDS)))
def test_residual_adds_that_are_found_are_those_of_the_table(architecture: str) -> None:
    model = tiny_models.build(architecture)

    def run() -> None:
        with torch.no_grad():
            model(**tiny_models.batch())

    found = find_calls(model, run, attention=False, residuals=True, norms=norms(model))
    adds = {(point.module, point.index) for point in found.operands}
    quantization = insert(model, QuantizationConfig(placement=QDQBERT))
    listed = [site for site in quantization.sites if site.kind == "residual.input"]
    assert len(adds) == len(listed) / 2
    summed = Placement(name="sums", sites=("residual.sum",))
    quantization.remove()
    norms_of_table = {site.module for site in insert(model, QuantizationConfig(placement=summed)).sites}
    assert set(found.sums) == norms_of_table


def test_what_cannot_be_done_there_is_said() -> None:
    masked = Placement(name="masked", sites=("matmul.probs", "attention.masked_scores"), mask_value=-6.0)
    with pytest.raises(QuantizationError, match=r"placement\.mask_value=-6"):
        insert(build("MPNet"), QuantizationConfig(placement=masked))
    scores = Placement(name="scores", sites=("matmul.probs", "attention.scores"))
    with pytest.raises(QuantizationError, match=r"has no attention\.scores"):
        insert(build("MPNet"), QuantizationConfig(placement=scores))


def test_a_model_with_the_interface_has_none_in_functions() -> None:
    assert not functions_of(tiny_models.build("bert"), QDQBERT).operands


@pytest.mark.parametrize("name", ["flaubert", "xlm"])
def test_adds_of_a_module_that_also_sums_embeddings(name: str) -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(encoders.config(name)).eval()
    sites = insert(model, QuantizationConfig(placement=QDQBERT)).sites
    adds = {site.module for site in sites if site.kind == "residual.input"}
    # Two adds in each of two layers; the first add of the model is that of positions to tokens.
    assert adds == {f"transformer.add_{add}.{operand}" for add in (1, 2, 3, 4) for operand in (0, 1)}


@pytest.mark.parametrize("exclude", [(), ("*classifier*",)])
def test_a_kind_without_a_site_is_told_whatever_is_excluded(exclude: tuple[str, ...]) -> None:
    placement = Placement(**QDQBERT.model_dump() | {"sites": ("residual.input",), "exclude": exclude})
    with pytest.raises(QuantizationError, match=r"has no residual\.input"):
        insert(nn.Linear(4, 4), QuantizationConfig(placement=placement), example=(torch.ones(1, 2, 4),))


def test_a_kind_of_which_all_sites_are_excluded_is_not_missed() -> None:
    placement = Placement(**QDQBERT.model_dump() | {"exclude": ("*add_*",)})
    sites = insert(build("MPNet"), QuantizationConfig(placement=placement)).sites
    assert sites
    assert not [site for site in sites if site.kind == "residual.input"]
