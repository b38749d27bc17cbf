"""Stage that calibrates ranges from statistics and weights."""

from __future__ import annotations

from dataclasses import asdict

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Moments, Ranges, Statistics
from qexp.config import AnyCalibrator, ImportedCalibrator, QuantizationConfig
from qexp.context import RunContext
from qexp.errors import QuantizationError
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    statistics: Statistics | None,
    quant_config: QuantizationConfig,
    calibrator: AnyCalibrator,
    migration: float | None,
    moments: Moments | None,
) -> None:
    """Choose scale and zero point of every quantizer from statistics, and compute the model's cost.

    ``statistics`` are None where no activation has a fixed range. ``migration`` and ``moments`` must be the
    ones that the statistics were observed with.
    """
    from safetensors.torch import save_file

    from qexp.context import set_threads
    from qexp.models.loading import load_saved
    from qexp.quant.algorithms.moments import MomentsFile
    from qexp.quant.algorithms.smoothquant import apply_smoothquant
    from qexp.quant.calibration.statistics import CalibrationStatistics as Seen
    from qexp.quant.cost import work_of
    from qexp.quant.insertion.imported_ranges import import_ranges
    from qexp.quant.insertion.insert import insert

    set_threads(ctx.threads)
    quantization = insert(load_saved(encoder.model), quant_config)
    facts = quantization.describe()
    if migration is not None and moments is not None:
        facts["migration"] = asdict(apply_smoothquant(quantization, MomentsFile(moments.file), migration))
    quantization.calibrate(Seen() if statistics is None else Seen.load(statistics.file), calibrator)
    if isinstance(calibrator, ImportedCalibrator):
        _refuse_migration(migration)
        facts["imported"] = import_ranges(quantization, calibrator)
    save_file(quantization.ranges(), Ranges(work.folder, "").file)
    facts["cost"] = work_of(quantization).describe(quantization.bits)
    work.write_facts(facts)


def _refuse_migration(migration: float | None) -> None:
    """Refuse imported ranges of values that SmoothQuant would change.

    Raises:
        QuantizationError: If there are factors of SmoothQuant.
    """
    if migration is not None:
        raise QuantizationError(
            f"refinement.migration={migration} with calibrator=imported: imported ranges are those of values "
            "without factors; set refinement.migration=null"
        )


STAGE = Stage(
    StageName.RANGES,
    1,
    Ranges,
    run,
    keys={
        "encoder": "encoder",
        "statistics": "statistics",
        "quant_config": "form",
        "calibrator": "calibrator",
        "migration": "migration",
        "moments": "moments",
    },
)
