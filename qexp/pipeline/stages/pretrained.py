"""Stage that calibrates the pretrained model under a new head, where quantization-aware training starts."""

from __future__ import annotations

from typing import Any

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import QatArtifact, Tokens
from qexp.config import (
    AnyCalibrator,
    Calibration,
    ImportedCalibrator,
    Numerics,
    QuantizationConfig,
    Task,
)
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    tokens: Tokens,
    checkpoint: Checkpoint,
    task: Task,
    quant_config: QuantizationConfig,
    calibrator: AnyCalibrator,
    calibration: Calibration,
    calibration_rows: int | None,
    seed: int,
    numerics: Numerics,
) -> None:
    """Draw the head from the seed, as fine-tuning does, observe the model, and choose its ranges."""
    from safetensors.torch import save_file

    from qexp.context import device_of, set_threads
    from qexp.models.loading import save
    from qexp.quant.insertion.imported_ranges import import_ranges
    from qexp.quant.insertion.insert import insert
    from qexp.tasks import adapter_for
    from qexp.tasks.calibration_pass import CalibrationRows, observe
    from qexp.tasks.fit import check_fit

    set_threads(ctx.threads)
    out = QatArtifact(work.folder, "")
    model = adapter_for(task).pretrained(checkpoint, tokens, seed)
    check_fit(model, tokens, task)
    save(model, out.model)
    quantization = insert(model.to(device_of(ctx.machine)), quant_config)
    facts = dict[str, Any]()
    rows = CalibrationRows(tokens, task, calibration=calibration, limit=calibration_rows, seed=seed)
    of_weights = calibrator if calibration.weights == "quantized" else None
    dimensions = quant_config.groups_dimensions
    if not quant_config.observes_nothing:
        facts |= observe(quantization, rows, of_weights, ctx, dimensions=dimensions)
    quantization.calibrate(quantization.statistics(), calibrator)
    if isinstance(calibrator, ImportedCalibrator):
        facts |= {"imported": import_ranges(quantization, calibrator)}
    save_file(quantization.ranges(), out.file)
    work.write_facts(facts)


STAGE = Stage(
    StageName.PRETRAINED,
    1,
    QatArtifact,
    run,
    keys={
        "tokens": "tokens",
        "checkpoint": "checkpoint",
        "task": "task",
        "quant_config": "quant_config",
        "calibrator": "calibrator",
        "calibration": "calibration",
        "calibration_rows": "calibration_rows",
        "seed": "seed",
        "numerics": "numerics",
    },
)
