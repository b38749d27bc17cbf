"""Stage that rounds the weights and corrects the biases of a calibrated model, by moments of inputs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Moments, Ranges
from qexp.config import Numerics, QuantizationConfig
from qexp.context import RunContext
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    ranges: Ranges,
    moments: Moments,
    quant_config: QuantizationConfig,
    rounding: Literal["nearest", "adaround", "gptq"],
    iterations: int | None,
    damping: float | None,
    activation_order: bool | None,
    bias_correction: bool,
    numerics: Numerics,
) -> None:
    """Change the float weights and biases for the given ranges, which stay unchanged.

    ``iterations`` is None unless ``rounding`` is ``adaround``; ``damping`` and ``activation_order`` are None
    unless it is ``gptq``.
    """
    from qexp.models.inference import load_quantized
    from qexp.models.loading import save
    from qexp.quant.algorithms.moments import MomentsFile
    from qexp.quant.algorithms.refine import linear_weights, refine, rounding_method

    model, quantization = load_quantized(encoder, quant_config, ranges, ctx)
    assert quantization is not None
    with ctx.console.bar("refine", total=len(linear_weights(quantization)), unit="layers") as advance:
        result = refine(
            quantization,
            MomentsFile(moments.file),
            rounding=rounding_method(iterations, damping, activation_order),
            bias_correction=bias_correction,
            advance=advance,
        )
    if not result.rounded and not result.corrected:
        ctx.console.warn(
            f"refinement: {type(model).__name__} has no quantized linear layer with a weight of its own"
            f"{' and a bias' if bias_correction else ''}, so it stays as it is"
        )
    if damping is not None and result.damping is not None and result.damping > damping:
        ctx.console.warn(
            f"refinement.damping={damping}: not every Hessian is positive definite with it; up to "
            f"{result.damping:g} was taken; more rows (calibration.samples) may help"
        )
    quantization.remove()
    save(model.cpu(), ModelArtifact(work.folder, "").model)
    work.write_facts(asdict(result))


STAGE = Stage(
    StageName.REFINED,
    1,
    ModelArtifact,
    run,
    keys={
        "encoder": "encoder",
        "ranges": "ranges",
        "moments": "moments",
        "quant_config": "form",
        "rounding": "rounding",
        "iterations": "iterations",
        "damping": "damping",
        "activation_order": "activation_order",
        "bias_correction": "bias_correction",
        "numerics": "numerics",
    },
    later=frozenset({"damping", "activation_order"}),
)
