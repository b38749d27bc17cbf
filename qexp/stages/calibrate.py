"""Statistics and weights to ranges."""

from __future__ import annotations

from qexp.artifacts import Encoder, Ranges, Statistics
from qexp.config import AnyCalibrator, Form
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


def run(
    work: Workplace,
    encoder: Encoder,
    statistics: Statistics,
    form: Form,
    calibrator: AnyCalibrator,
    *,
    rt: Runtime,
) -> None:
    """Choose a scale and a zero point for every quantizer, from statistics alone, and count what it costs."""
    from safetensors.torch import save_file

    from qexp.lit.encoder import load_saved
    from qexp.quant.cost import work_of
    from qexp.quant.insert import insert
    from qexp.quant.statistics import Statistics as Seen
    from qexp.runtime import set_threads

    set_threads(rt.threads)
    quantization = insert(load_saved(encoder.model), form)
    quantization.calibrate(Seen.load(statistics.file), calibrator)
    save_file(quantization.ranges(), Ranges(work.folder, "").file)
    cost = work_of(quantization).describe(quantization.bits)
    work.write_facts({**quantization.describe(), "cost": cost})


STAGE = Stage("4-ranges", 1, Ranges, run)
