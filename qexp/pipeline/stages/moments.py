"""One pass over calibration rows to the moments of what linear layers read."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Moments, Tokens
from qexp.config import Calibration, Numerics, Task
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    tokens: Tokens,
    task: Task,
    calibration: Calibration,
    calibration_rows: int | None,
    seed: int,
    gram: bool,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Run the float model over the rows that statistics are of; ``gram`` asks for second moments, too."""
    from qexp.context import device_of, set_threads
    from qexp.models.loading import load_saved
    from qexp.quant.algorithms.moments import MomentsOfInputs
    from qexp.tasks.calibration_pass import CalibrationRows

    set_threads(rt.threads)
    model = load_saved(encoder.model).to(device_of(rt.machine))
    moments = MomentsOfInputs(model, gram=gram)
    rows = CalibrationRows(tokens, task, calibration, calibration_rows, seed)
    facts = rows.run(model, moments.observing, "moments", rt)
    moments.save(Moments(work.folder, "").file)
    work.write_facts(facts)


STAGE = Stage("3-moments", 1, Moments, run)
