"""A calibrated model to one whose weights are rounded, and whose biases are corrected, by moments."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Moments, Ranges
from qexp.config import Form, Numerics
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    ranges: Ranges,
    moments: Moments,
    form: Form,
    rounding: Literal["nearest", "adaround"],
    iterations: int | None,
    bias_correction: bool,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Change float weights and biases; the ranges are read, and stay.

    ``iterations`` are null where rounding takes none.
    """
    from qexp.models.inference import load_quantized
    from qexp.models.loading import save
    from qexp.quant.algorithms.moments import MomentsFile
    from qexp.quant.algorithms.refine import linear_weights, refine

    model, quantization = load_quantized(encoder, form, ranges, rt)
    assert quantization is not None
    with rt.screen.bar("refine", total=len(linear_weights(quantization))) as move:
        done = refine(
            quantization, MomentsFile(moments.file), rounding=rounding, iterations=iterations,
            bias_correction=bias_correction, move=move,
        )  # fmt: skip
    if not done.rounded and not done.corrected:
        rt.screen.warn(
            f"refinement: {type(model).__name__} has no quantized linear layer with a weight of its own"
            f"{' and a bias' if bias_correction else ''}, so it stays as it is"
        )
    quantization.remove()
    save(model.cpu(), Encoder(work.folder, "").model)
    work.write_facts(asdict(done))


STAGE = Stage("4-refined", 1, Encoder, run)
