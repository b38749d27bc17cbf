"""A tiny encoder on each grid of floats: calibrated, trained for a step, saved and loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qexp.config import MaxCalibrator, NumberFormat, Placement, Quant, QuantizationConfig
from qexp.quant.cost import work_of
from qexp.quant.insertion.insert import insert
from tests.support.tiny_encoders import EXAMPLE, batch, encoder

SITES: Any = ("linear.weight", "linear.input", "embedding.weight", "matmul.query", "matmul.probs")


def quantized(number_format: NumberFormat, bits: int) -> Any:
    formats = {"weight_format": number_format, "activation_format": number_format}
    quant = Quant(weight_bits=bits, activation_bits=bits, **formats)
    placement = Placement(name="some", sites=SITES)
    return insert(encoder("bert"), QuantizationConfig(placement=placement, quant=quant))


@pytest.mark.parametrize(
    ("number_format", "bits"), [("fp8_e4m3", 8), ("fp8_e5m2", 8), ("mxfp8", 8), ("nvfp4", 4)]
)
@pytest.mark.parametrize("ranges", ["learned", "ema", "frozen"])
def test_ptq_a_step_of_qat_and_saved_ranges(number_format: NumberFormat, bits: int, ranges: str) -> None:
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    quantization = quantized(number_format, bits)
    model = quantization.model
    with quantization.observing(values["attention_mask"]), torch.no_grad():
        floats = model(**values).logits
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    with torch.no_grad():
        ptq = model(**values).logits
    assert 0 < float((ptq - floats).norm()) < 0.6 * float(floats.norm())
    start = {"learned": quantization.learn, "ema": lambda: quantization.use_ema(0.9), "frozen": lambda: None}
    start[ranges]()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with quantization.padding(values["attention_mask"]):
        model(**values).logits.square().mean().backward()
    assert all(bool(each.grad.isfinite().all()) for each in model.parameters() if each.grad is not None)
    optimizer.step()
    model.eval()
    quantization.freeze()
    with torch.no_grad():
        trained = model(**values).logits
    assert not torch.equal(trained, ptq)
    other = quantized(number_format, bits)
    other.model.load_state_dict(model.state_dict())
    other.load_ranges(quantization.ranges())
    other.freeze()
    with torch.no_grad():
        assert torch.equal(other.model.eval()(**values).logits, trained)


def test_scales_of_blocks_count_as_bytes() -> None:
    sizes = {}
    for number_format, bits in (("fp8_e4m3", 8), ("mxfp8", 8), ("nvfp4", 4)):
        quantization = quantized(number_format, bits)  # type: ignore[arg-type]
        quantization.calibrate_weights(MaxCalibrator(kind="max"))
        for each in quantization.activations():
            quantization.quantizers[each].set_scale(torch.tensor(1.0), torch.tensor(0))
        work = work_of(quantization)
        elements = sum(each.elements for each in work.stored)
        stored = sum(each.bytes(quantization.bits) for each in work.stored)
        sizes[number_format] = (stored - 4 * sum(each.scales for each in work.stored)) / elements
    assert sizes == {"fp8_e4m3": 1.0, "mxfp8": 1 + 1 / 32, "nvfp4": 0.5 + 1 / 16}
