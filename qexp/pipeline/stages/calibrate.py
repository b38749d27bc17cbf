"""Statistics and weights to ranges."""

from __future__ import annotations

from dataclasses import asdict

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Moments, Ranges, Statistics
from qexp.config import AnyCalibrator, Form
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    statistics: Statistics,
    form: Form,
    calibrator: AnyCalibrator,
    migration: float | None,
    moments: Moments | None,
    *,
    rt: Runtime,
) -> None:
    """Choose a scale and a zero point for every quantizer, from statistics alone, and count what it costs.

    ``migration`` and ``moments`` are those of the statistics.
    """
    from safetensors.torch import save_file

    from qexp.context import set_threads
    from qexp.models.loading import load_saved
    from qexp.quant.algorithms.moments import MomentsFile
    from qexp.quant.algorithms.smoothquant import migrate
    from qexp.quant.calibration.statistics import Statistics as Seen
    from qexp.quant.cost import work_of
    from qexp.quant.insertion.insert import insert

    set_threads(rt.threads)
    quantization = insert(load_saved(encoder.model), form)
    facts = quantization.describe()
    if migration is not None and moments is not None:
        facts["migration"] = asdict(migrate(quantization, MomentsFile(moments.file), migration))
    quantization.calibrate(Seen.load(statistics.file), calibrator)
    save_file(quantization.ranges(), Ranges(work.folder, "").file)
    facts["cost"] = work_of(quantization).describe(quantization.bits)
    work.write_facts(facts)


STAGE = Stage("4-ranges", 1, Ranges, run)
