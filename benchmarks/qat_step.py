"""Price of one QAT step: forward, backward and optimizer, over the same step in FP32.

    python -m benchmarks.qat_step [--length 64] [--batch 32] [--rounds 9] [--threads 2]

One process, one batch, the MiniLM-L6 shape with random weights, dropout 0. ``fp32`` is plain transformers
with its default attention, ``fp32 eager`` the same with the attention that quantizers need. Variants take
turns, so that drift of the machine hits all alike; a figure is the median over rounds of the ratio to
``fp32`` within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from qexp.config import MaxCalibrator, Placement, Quant, Scheme
from qexp.quant.insert import Quantization, insert

PLACEMENT = Placement(
    name="qdqbert",
    sites=(
        "linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value",
        "residual.input",
    ),
)  # fmt: skip
LINEAR = Placement(name="linear", sites=("linear.weight", "linear.input"))


def model_of(placement: Placement | None, phase: str, batch: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The encoder: plain with the attention ``phase``, or with calibrated quantizers in that phase."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    if placement is None:
        model.set_attn_implementation(phase)
    else:
        quantization: Quantization = insert(model, placement, Quant(), Scheme())
        with torch.no_grad(), quantization.observing(batch["attention_mask"]):
            model.eval()(**batch)
        quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
        (quantization.learn if phase == "learned" else quantization.freeze)()
    return model.train()


def step_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One optimizer step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return step


def forward_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One evaluation."""

    def forward() -> None:
        with torch.no_grad():
            model(**batch)

    return forward


def seconds(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each call, and median, least and largest ratio to ``fp32`` within a round."""
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    found = {}
    for name in calls:
        ratios = [each[name] / each["fp32"] for each in times]
        found[name] = {
            "seconds": statistics.median(each[name] for each in times),
            "ratio": statistics.median(ratios), "least": min(ratios), "largest": max(ratios),
        }  # fmt: skip
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("length", 64), ("batch", 32), ("rounds", 9), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ids = torch.randint(0, 30522, (options.batch, options.length))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    variants = {
        "fp32": (None, "sdpa"), "fp32 eager": (None, "eager"), "linear frozen": (LINEAR, "frozen"),
        "qdqbert frozen": (PLACEMENT, "frozen"), "qdqbert learned": (PLACEMENT, "learned"),
    }  # fmt: skip
    models = {name: model_of(placement, phase, batch) for name, (placement, phase) in variants.items()}
    result = {
        "train step": measure(
            {name: step_of(model, batch) for name, model in models.items()}, options.rounds
        ),
        "forward": measure(
            {name: forward_of(model.eval(), batch) for name, model in models.items()}, options.rounds
        ),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
