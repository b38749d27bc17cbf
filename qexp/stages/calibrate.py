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
    """Choose a scale and a zero point for every quantizer; no forward pass is needed."""
    from safetensors.torch import save_file

    from qexp.lit.encoder import load_saved
    from qexp.quant.insert import insert
    from qexp.quant.statistics import Statistics as Seen
    from qexp.runtime import set_threads

    set_threads(rt.threads)
    quantization = insert(load_saved(encoder.model), form)
    quantization.calibrate(Seen.load(statistics.file), calibrator)
    save_file(quantization.ranges(), Ranges(work.folder, "").file)
    work.write_facts(quantization.describe())


STAGE = Stage("4-ranges", 1, Ranges, run)
