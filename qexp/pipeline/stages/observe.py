"""One pass over calibration rows to the statistics of every activation."""

from __future__ import annotations

from functools import partial

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Moments, Statistics, Tokens
from qexp.config import Calibration, Form, Numerics, Placement, Quant, Task
from qexp.context import Runtime

OBSERVED = Quant(weight_bits=32, activation_bits=8)
"""Which bits does not matter to statistics; that activations have a quantizer does."""


def run(
    work: Workplace,
    encoder: Encoder,
    tokens: Tokens,
    task: Task,
    placement: Placement,
    calibration: Calibration,
    calibration_rows: int | None,
    seed: int,
    dimensions: bool,
    migration: float | None,
    moments: Moments | None,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Run the float model over rows of the train split; every calibrator and bit-width reads the result.

    Which rows share a batch matters to ``ema`` alone; the first batch's largest magnitude sets the width of
    the bins, within which the other calibrators are exact. What some of them need of each dimension is left
    out where nothing does. With ``migration``, for which ``moments`` say how large inputs are, statistics are
    of values as they are quantized then.
    """
    from qexp.context import device_of, set_threads
    from qexp.models.loading import load_saved
    from qexp.quant.algorithms.moments import MomentsFile
    from qexp.quant.algorithms.smoothquant import migrate
    from qexp.quant.insertion.insert import insert
    from qexp.tasks.calibration_pass import CalibrationRows

    set_threads(rt.threads)
    model = load_saved(encoder.model).to(device_of(rt.machine))
    quantization = insert(model, Form(placement=placement, quant=OBSERVED))
    if migration is not None and moments is not None:
        migrate(quantization, MomentsFile(moments.file), migration)
    rows = CalibrationRows(tokens, task, calibration, calibration_rows, seed)
    observing = partial(quantization.observing, dimensions=dimensions)
    facts = rows.run(model, observing, "observe", rt)
    quantization.statistics().save(Statistics(work.folder, "").file)
    work.write_facts(facts)


STAGE = Stage("3-statistics", 3, Statistics, run)
