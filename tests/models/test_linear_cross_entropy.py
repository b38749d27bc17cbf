"""The fused linear cross entropy against torch's own, group by group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qexp.models import linear_cross_entropy
from qexp.models.linear_cross_entropy import LinearCrossEntropy, Targets, withheld_logits

CLASSES = 37


def inputs(rows: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias and labels."""
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 8, generator=generator)
    weight = torch.randn(CLASSES, 8, generator=generator) * scale
    bias = torch.randn(CLASSES, generator=generator)
    return hidden, weight, bias, torch.randint(0, CLASSES, (rows,), generator=generator)


def leaves(*tensors: Tensor | None) -> list[Tensor | None]:
    return [each if each is None else each.clone().requires_grad_() for each in tensors]


def gradients(total: Tensor, found: list[Tensor | None]) -> list[Tensor]:
    wanted = [each for each in found if each is not None]
    return list(torch.autograd.grad(total, wanted))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("group", [1, 5, 64])
def test_loss_and_gradients_are_those_of_torch(
    group: int, biased: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(linear_cross_entropy.GROUP_BYTES, "cpu", 4 * CLASSES * group)
    *tensors, labels = inputs(23)
    tensors[2] = tensors[2] if biased else None  # type: ignore[call-overload]
    own, oracle = leaves(*tensors), leaves(*tensors)
    found = LinearCrossEntropy.apply(*own, Targets(labels, smoothing))
    logits = functional.linear(*oracle)  # type: ignore[arg-type]
    wanted = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(found, wanted)
    pairs = zip(gradients(found * 0.25, own), gradients(wanted * 0.25, oracle), strict=True)
    for mine, torchs in pairs:
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-5)


def test_a_label_whose_probability_is_not_a_float_has_a_finite_loss() -> None:
    hidden, weight, _, labels = inputs(9, scale=200.0)
    logits = functional.linear(hidden, weight)
    assert float(logits.softmax(1).gather(1, labels[:, None]).min()) == 0.0
    found = LinearCrossEntropy.apply(hidden, weight, None, Targets(labels))
    torch.testing.assert_close(found, functional.cross_entropy(logits, labels, reduction="sum"))


def test_no_group_waits_for_a_device_other_than_the_cpu() -> None:
    hidden, weight, bias, labels = (each.to("meta") for each in inputs(9))
    work = linear_cross_entropy._Work(hidden, weight, bias, torch.float32)
    total = work.add(slice(0, 4), Targets(labels, 0.1))  # values of this device cannot be asked for
    assert total.device.type == "meta"


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_the_sum_is_read_off_the_likeliest_class_whatever_the_labels(scale: float) -> None:
    hidden, weight, bias, _ = inputs(40, scale)
    logits = functional.linear(hidden, weight, bias)
    found = linear_cross_entropy._log_sum_by_likeliest(logits, logits.softmax(1))
    torch.testing.assert_close(found, logits.logsumexp(1, keepdim=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_the_loss_on_a_gpu_is_that_of_torch(scale: float) -> None:
    hidden, weight, bias, labels = (each.cuda() for each in inputs(40, scale))
    found = LinearCrossEntropy.apply(hidden, weight, bias, Targets(labels, 0.1))
    logits = functional.linear(hidden, weight, bias)
    wanted = functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(found, wanted)


def test_mixed_precision_multiplies_narrow_and_sums_wide() -> None:
    hidden, weight, _, labels = inputs(40)
    own = leaves(hidden, weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = LinearCrossEntropy.apply(*own, None, Targets(labels, 0.1))
    wide = functional.cross_entropy(
        functional.linear(hidden, weight), labels, label_smoothing=0.1, reduction="sum"
    )
    assert found.dtype == torch.float32
    assert 0 < float((found.detach() - wide).abs()) < 0.02 * float(wide)
    assert [each.dtype for each in gradients(found, own)] == [torch.float32] * 2


def test_a_projection_is_itself_again_after_its_logits_were_withheld() -> None:
    projection = nn.Linear(8, CLASSES, bias=False)
    hidden = torch.randn(2, 3, 8)
    before = projection(hidden)
    with withheld_logits(projection) as call:
        assert projection(hidden).shape == (0, CLASSES)
    assert call.hidden is hidden and call.weight is projection.weight
    assert torch.equal(projection(hidden), before)
