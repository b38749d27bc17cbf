"""Tests of mixed precision: what runs in lower precision, and what stays in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from qexp.data.microbatches import BatchSplit
from tests.support.tiny_training import Tiny, Witness, plan, trained


class _Watch(Tiny):
    """Notes the types in which linear layers answer."""

    seen: set[torch.dtype]

    def module(self, steps: int, parts: BatchSplit) -> Witness:
        module = super().module(steps, parts)
        seen: set[torch.dtype] = set()
        object.__setattr__(self, "seen", seen)
        linear = module.model.get_submodule("bert.encoder.layer.0.intermediate.dense")
        linear.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
        return module


def _watched(tiny: Tiny) -> _Watch:
    return _Watch(**{name: getattr(tiny, name) for name in Tiny.__dataclass_fields__})


@pytest.mark.parametrize("mode", ["float", "frozen", "learned"])
def test_bf16_computes_narrow_and_keeps_everything_in_fp32(mode: str, tmp_path: Path) -> None:
    exact, _ = trained(plan(tmp_path / "fp32", count=20, mode=mode))
    tiny = _watched(plan(tmp_path / "bf16", count=20, mode=mode, precision="bf16"))
    facts, result = trained(tiny)
    assert tiny.seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in result.values() if tensor.is_floating_point()} == {torch.float32}
    assert facts["loss"] != exact["loss"]
    assert np.abs(np.subtract(facts["loss"], exact["loss"])).max() < 0.05
    assert any(name.endswith("log_scale") for name in result) == (mode == "learned")


def test_bf16_resumes_to_the_same_bits(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"precision": "bf16", "dropout": True, "mode": "learned"}
    whole, expected = trained(plan(tmp_path / "whole", **fields))
    with pytest.raises(RuntimeError, match="no luck"):
        trained(plan(tmp_path / "cut", **fields, trouble=("raise", 0, 3)), seconds=0)
    facts, result = trained(plan(tmp_path / "cut", **fields))
    assert facts["resumed_at"] == 3
    assert facts["loss"] == whole["loss"]
    assert all(torch.equal(expected[name], result[name]) for name in expected)


@pytest.mark.parametrize("mode", ["float", "learned"])
def test_fp16_scales_its_loss(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning offers FP16 on a GPU only; its plugin works on a CPU too, slowly, which is enough here."""
    scaler = torch.amp.GradScaler("cpu")
    trainer = pl.Trainer

    def narrow(*, precision: str, plugins: list[Any], **rest: Any) -> pl.Trainer:
        assert precision == "16-mixed"
        return trainer(plugins=[*plugins, MixedPrecision("16-mixed", "cpu", scaler)], **rest)

    exact, _ = trained(plan(tmp_path / "fp32", count=20, mode=mode))
    monkeypatch.setattr("qexp.training.trainer.pl.Trainer", narrow)
    facts, result = trained(plan(tmp_path / "fp16", count=20, mode=mode, precision="fp16"))
    assert np.abs(np.subtract(facts["loss"], exact["loss"])).max() < 0.05
    assert scaler.get_scale() >= 1
    assert {tensor.dtype for tensor in result.values() if tensor.is_floating_point()} == {torch.float32}
