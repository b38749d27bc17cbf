"""qexp's ``recipe=aimet`` on the random BERT beside AIMET 2.42."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qexp.quant.insertion.quantized_model import QuantizedModel
from tests.conformance import inputs
from tests.conformance.inputs import Array
from tests.conformance.ours.aimet_ranges import (
    ALIKE,
    HISTOGRAM,
    NAME,
    encodings_row,
    noise_beyond,
    range_rows,
    recipe,
    value_rows,
)
from tests.conformance.ours.encoders import (
    calibrated,
    logits,
    observed_values,
    site_quantizers,
    start_training,
    step_weights,
)
from tests.conformance.table import Row, logits_row, scales_row

FUNCTIONAL = "conf/placement/aimet.yaml: inputs of adds"


def site_of(name: str) -> tuple[str, str]:
    """Return qexp's kind and module of AIMET's ``module:role``; the kind is empty if qexp has none."""
    module, role = name.split(":")
    parent, _, last = module.rpartition(".")
    if role.startswith("input"):
        return "", name
    if role == "weight":
        kinds = {"LayerNorm": "layernorm.weight"}
        kind = kinds.get(last, "embedding.weight" if last.endswith("embeddings") else "linear.weight")
        return kind, module
    inside = {
        "matmul_1": "attention.scores",
        "mask_add": "attention.masked_scores",
        "softmax": "matmul.probs",
    }
    if last in inside:
        return inside[last], parent
    if last == "matmul_2":
        return "attention.context", f"{parent.removesuffix('.self')}.output.dense"
    if last in ("add", "add_2"):
        return "layernorm.input", f"{parent}.LayerNorm"
    if last == "LayerNorm":
        return "layernorm.output", module
    if last in ("intermediate_act_fn", "activation"):
        return "activation.output", module
    return ("", name) if last == "add_1" else ("linear.output", module)


def sites_row(golden: Mapping[str, Any]) -> Row:
    """Compare the lists of quantized values, with bits, symmetry and the number of ranges."""
    quantization = calibrated(recipe("quant=w4a8", "calibrator=max"), inputs.bert_batches(1))
    ours = {
        site: (each.grid.bits, each.grid.symmetric, each.scale.numel())
        for site, each in site_quantizers(quantization).items()
    }
    real = {
        site_of(name): (bits, symmetric, int(np.prod(shape)))
        for name, (bits, symmetric, shape) in golden["sites"].items()
    }
    missing, more = set(real) - set(ours), set(ours) - set(real)
    apart = [site for site in set(real) & set(ours) if real[site] != ours[site]]
    kinds = sorted(
        {kind or ".".join(module.split(".")[-3 if "input" in module else -1 :]) for kind, module in missing}
    )
    text = f"{len(missing)} missing ({', '.join(kinds)}), {len(more)} more, {len(apart)} of another form"
    functional = not more and not apart and all(not kind for kind, _ in missing)
    equal = not (missing or more or apart)
    return Row(NAME, "sites, W4A8", str(len(real)), str(len(ours)), text, equal, FUNCTIONAL * functional)


CASES = {
    "tf 4": ("quant=w4a8", "calibrator=max"),
    "tf 8": ("quant=w8a8", "calibrator=max"),
    "sqnr 8": ("quant=w8a8",),
}
"""Settings beside the recipe's, for each case of AIMET's."""


def model_rows(arrays: Mapping[str, Array], cases: Sequence[str] = tuple(CASES)) -> Iterator[Row]:
    """Compare ranges of the activations of the random BERT, and logits."""
    batches = inputs.bert_batches(5)
    for case in cases:
        words = CASES[case]
        quantization = calibrated(recipe(*words), batches[:4], plain=True)
        yield activations_row(case, arrays, quantization, batches[:4], " float weights")
        if case.startswith("sqnr"):
            continue  # weights differ by a candidate here and there, and so do the activations behind them
        quantization = calibrated(recipe(*words), batches[:4])
        yield activations_row(case, arrays, quantization, batches[:4])
        quantization.freeze()
        result = logits(quantization.model, batches[4])
        of = {what: arrays[f"{case}|{what}"] for what in ("logits", "logits without inputs of adds")}
        found = [logits_row(NAME, f"first {what}, {case}", real, result) for what, real in of.items()]
        yield replace(found[0], variant=FUNCTIONAL * found[1].equal)
        yield found[1]


def float_row(arrays: Mapping[str, Array]) -> Row:
    """Compare logits in floating point, with the mask of -6."""
    batches = inputs.bert_batches(5)
    ours = logits(calibrated(recipe(), batches[:1]).model, batches[4])
    return logits_row(NAME, "logits in floating point, mask -6", arrays["logits float"], ours)


def activations_row(
    case: str,
    arrays: Mapping[str, Array],
    quantization: QuantizedModel,
    batches: list[dict[str, Array]],
    setting: str = "",
) -> Row:
    """Compare the scales of all activations that both have."""
    sites, values = site_quantizers(quantization), observed_values(quantization, batches)
    real, ours, noisier = [], [], []
    for name, (scale, first) in _encodings(arrays, f"{case}{setting}"):
        kind, module = site_of(name)
        quantizer = sites.get((kind, module))
        if quantizer is None or kind.endswith("weight"):
            continue
        # AIMET quantizes scores before they are divided by the root of the head's width.
        divisor = (inputs.WIDTH // inputs.HEADS) ** 0.5 if kind == "attention.scores" else 1.0
        theirs = float(scale[0]) / divisor
        mine, grid = float(quantizer.scale), quantizer.grid
        lowest = grid.qmin - int(quantizer.zero_point)
        seen, steps = values[quantizer.name][None], grid.qmax - grid.qmin
        real.append(theirs)
        ours.append(mine)
        noisier.append(noise_beyond(seen, ([theirs], first, steps), ([mine], [lowest], steps)))
    variant = HISTOGRAM if case.startswith("sqnr") and max(noisier) < ALIKE else ""
    what = f"activation scales of BERT, {case}{',' * bool(setting)}{setting}"
    return scales_row(NAME, what, np.array(real), np.array(ours), variant)


def _encodings(arrays: Mapping[str, Array], label: str) -> Iterator[tuple[str, Array]]:
    for key, value in arrays.items():
        case, _, name = key.partition("|")
        if case == label and ":" in name:
            yield name, value


def training_rows(arrays: Mapping[str, Array]) -> Iterator[Row]:
    """Compare weight ranges after a training step with those that AIMET 1.27 finds anew in it."""
    weights = inputs.bert_weights()
    for scheme, words in (("tf", ("calibrator=max",)), ("sqnr", ())):
        chosen = recipe("quant=w4a8", *words)
        quantization = calibrated(chosen, inputs.bert_batches(1))
        start_training(quantization, chosen)
        step_weights(quantization.model)
        sites = site_quantizers(quantization)
        real, ours, noisier = [], [], []
        for key, scales in arrays.items():
            if key.startswith("moved|") and key.endswith(f"|{scheme}"):
                name = key.split("|")[1]
                quantizer = sites["linear.weight", name.removesuffix(".weight")]
                mine, grid = quantizer.scale.detach().numpy().ravel(), quantizer.grid
                moved = inputs.stepped(weights[name])
                theirs = (scales, np.full(len(scales), -8), 15)
                first, steps = np.full(len(mine), grid.qmin), grid.qmax - grid.qmin
                noisier.append(noise_beyond(moved, theirs, (mine, first, steps)))
                real.append(scales)
                ours.append(mine)
        variant = HISTOGRAM if scheme == "sqnr" and max(noisier) < ALIKE else ""
        what = f"weight scales after a training step, W4, {scheme}"
        yield scales_row(NAME, what, np.concatenate(real), np.concatenate(ours), variant)


def rows(golden: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[Row]:
    """Return all comparisons with AIMET."""
    yield sites_row(golden)
    yield from range_rows(golden)
    yield from value_rows(golden)
    yield float_row(arrays)
    yield from model_rows(arrays)
    yield from training_rows(arrays)
    yield encodings_row(golden)
