"""Stage that computes moments of the inputs of linear layers in one pass over calibration rows."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Moments, Tokens
from qexp.config import Calibration, Numerics, Task
from qexp.context import RunContext
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    tokens: Tokens,
    task: Task,
    calibration: Calibration,
    calibration_rows: int | None,
    seed: int,
    gram: bool,
    numerics: Numerics,
) -> None:
    """Run the float model over the calibration rows; ``gram`` adds second moments."""
    from qexp.context import device_of, set_threads
    from qexp.models.loading import load_saved
    from qexp.quant.algorithms.moments import InputMomentsCounter
    from qexp.tasks.calibration_pass import CalibrationRows

    set_threads(ctx.threads)
    model = load_saved(encoder.model).to(device_of(ctx.machine))
    moments = InputMomentsCounter(model, gram=gram)
    rows = CalibrationRows(tokens, task, calibration=calibration, limit=calibration_rows, seed=seed)
    facts = rows.run(model, moments.observing, "moments", ctx)
    moments.save(Moments(work.folder, "").file)
    work.write_facts(facts)


STAGE = Stage(
    StageName.MOMENTS,
    1,
    Moments,
    run,
    keys={
        "encoder": "encoder",
        "tokens": "tokens",
        "task": "task",
        "calibration": "calibration",
        "calibration_rows": "calibration_rows",
        "seed": "seed",
        "gram": "gram",
        "numerics": "numerics",
    },
)
