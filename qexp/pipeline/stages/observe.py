"""Stage that observes the statistics of every activation in one pass over calibration rows."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Moments, Statistics, Tokens
from qexp.config import (
    AnyCalibrator,
    Calibration,
    Numerics,
    Placement,
    Quant,
    QuantizationConfig,
    Task,
)
from qexp.context import RunContext
from qexp.naming import StageName

OBSERVED = Quant(weight_bits=32, activation_bits=8)
"""Bit-widths of the observed model. Statistics do not depend on them, only on which activations have a
quantizer."""


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    tokens: Tokens,
    task: Task,
    placement: Placement,
    quant_config: QuantizationConfig | None,
    calibrator: AnyCalibrator | None,
    calibration: Calibration,
    calibration_rows: int | None,
    seed: int,
    dimensions: bool,
    migration: float | None,
    moments: Moments | None,
    numerics: Numerics,
) -> None:
    """Run the model over rows of the train split.

    The statistics serve every calibrator and bit-width, unless weights are quantized meanwhile, on the grids
    of ``quant_config`` and with ranges by ``calibrator``; both are None for float weights. The assignment of
    rows to batches affects only ``ema``, and the width of the histogram bins, which follows from the largest
    magnitude in the first batch; the other calibrators are exact within a bin. Statistics of single
    dimensions, which some calibrations need, are collected only with ``dimensions``. With ``migration``,
    whose scales follow from the magnitudes in ``moments``, values are observed as they are quantized later.
    """
    from qexp.context import device_of, set_threads
    from qexp.models.loading import load_saved
    from qexp.quant.algorithms.moments import MomentsFile
    from qexp.quant.algorithms.smoothquant import apply_smoothquant
    from qexp.quant.insertion.insert import insert
    from qexp.tasks.calibration_pass import CalibrationRows, observe

    set_threads(ctx.threads)
    model = load_saved(encoder.model).to(device_of(ctx.machine))
    quantization = insert(model, quant_config or QuantizationConfig(placement=placement, quant=OBSERVED))
    if migration is not None and moments is not None:
        apply_smoothquant(quantization, MomentsFile(moments.file), migration)
    rows = CalibrationRows(tokens, task, calibration=calibration, limit=calibration_rows, seed=seed)
    facts = observe(quantization, rows, calibrator, ctx, dimensions=dimensions)
    quantization.statistics().save(Statistics(work.folder, "").file)
    work.write_facts(facts)


STAGE = Stage(
    StageName.STATISTICS,
    4,
    Statistics,
    run,
    keys={
        "encoder": "encoder",
        "tokens": "tokens",
        "task": "task",
        "placement": "placement",
        "quant_config": "quant_config",
        "calibrator": "calibrator",
        "calibration": "calibration",
        "calibration_rows": "calibration_rows",
        "seed": "seed",
        "dimensions": "dimensions",
        "migration": "migration",
        "moments": "moments",
        "numerics": "numerics",
    },
)
