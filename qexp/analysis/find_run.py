"""Lookup of a run's Record by file or key, and of the artifacts of its quantized model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qexp.artifacts.types import ModelArtifact, Ranges
from qexp.errors import QuantizationError, StoreError
from qexp.naming import StageName
from qexp.records.record import Record, read, read_all, records_folder
from qexp.reporting.command import command_of
from qexp.reporting.run_view import RunView

if TYPE_CHECKING:
    from pydantic import ValidationError

    from qexp.config import Experiment, QuantizationConfig

QuantizedStage = Literal["ptq", "qat"]
WEIGHTS: dict[QuantizedStage, tuple[str, ...]] = {
    "ptq": (StageName.REFINED, StageName.EQUALIZED, StageName.FP32),
    "qat": (StageName.QAT,),
}
"""Stages that may hold the weights, by requested stage; the first one that the run visited counts."""
RANGES: dict[QuantizedStage, str] = {"ptq": StageName.RANGES, "qat": StageName.QAT}
"""Stage that holds the ranges, by requested stage."""


@dataclass(frozen=True)
class QuantizedRun:
    """Quantized model of a run in the store."""

    record: Record
    stage: QuantizedStage
    quant_config: QuantizationConfig
    model: Path
    """Folder of the model in the format of transformers."""
    ranges: Path
    """File of the ranges."""

    @property
    def title(self) -> str:
        """Short description of the run."""
        experiment = self.record.experiment
        name = str(experiment["model"]["name"]).rstrip("/").rsplit("/", 1)[-1]
        quant, placement = self.quant_config.quant.name, self.quant_config.placement.name
        task = experiment["task"]["name"]
        return f"{task} {name} {quant} {placement} {self.stage}, run {self.record.key[:12]}"


def find_record(run: str, outputs: Path) -> Record:
    """Return the Record of a file, or the only one whose key starts with ``run``.

    Raises:
        StoreError: If there is no such Record, or there are several.
    """
    if Path(run).is_file():
        return read(Path(run))
    folder = records_folder(outputs)
    if not folder.is_dir():
        raise StoreError(
            f"{run}: no such file, and no Records in {folder}; name a Record's file, or other outputs "
            "with --outputs"
        )
    records, _ = read_all(folder)
    matches = [record for record in records if record.key.startswith(run)]
    if len(matches) == 1:
        return matches[0]
    problem = f"{len(matches)} Records begin so" if matches else "no such file, and no Record's key begins so"
    raise StoreError(f"{run}: {problem}; there are:\n{_listed(matches or records)}")


def subject_of(record: Record, outputs: Path, stage: QuantizedStage | None) -> QuantizedRun:
    """Return the quantized model of a stage of a run, or of its last stage if None.

    Raises:
        QuantizationError: If the run quantized nothing, or nothing in that stage.
        StoreError: If the artifacts are missing, or another version wrote the Record.
    """
    keys = {visit["stage"]: visit["key"] for visit in record.stages}
    if StageName.RANGES not in keys:
        _nothing_quantized(record)
    stage = stage or ("qat" if StageName.QAT in keys else "ptq")
    if stage == "qat" and StageName.QAT not in keys:
        raise QuantizationError(f"run {record.key[:12]} has no QAT, only calibrated ranges: use --stage ptq")
    quant_config = _quant_config(record)
    weights, ranges = (outputs / "artifacts" / name / keys[name] for name in stages_of(record, stage))
    subject = QuantizedRun(
        record,
        stage,
        quant_config=quant_config,
        model=ModelArtifact(weights, "").model,
        ranges=Ranges(ranges, "").file,
    )
    for path in (subject.model, subject.ranges):
        if not path.exists():
            raise missing_artifact_error(record, f"{path} is gone")
    return subject


def stages_of(record: Record, stage: QuantizedStage) -> tuple[str, str]:
    """Return the pipeline stages that hold the weights and the ranges of a run's PTQ or QAT model."""
    visited = {visit["stage"] for visit in record.stages}
    return next((name for name in WEIGHTS[stage] if name in visited), WEIGHTS[stage][-1]), RANGES[stage]


def missing_artifact_error(record: Record, what: str) -> StoreError:
    """Return the error for an unusable artifact, with the command that produces it again."""
    command = command_of(RunView(record))
    return StoreError(f"{what}; this makes it again, if data and checkpoint are the same:\n  {command}")


def folder_of(record: Record, stage: str, outputs: Path) -> Path:
    """Return the folder of the artifact of a run's stage, after a check against its manifest.

    Raises:
        StoreError: If the artifact is missing or damaged.
    """
    from qexp.artifacts.manifest import problem_of

    keys = {visit["stage"]: visit["key"] for visit in record.stages}
    if stage not in keys:
        raise missing_artifact_error(record, f"run {record.key[:12]} has no {stage}")
    folder = outputs / "artifacts" / stage / keys[stage]
    if not folder.is_dir():
        raise missing_artifact_error(record, f"{folder} is gone")
    if problem := problem_of(folder):
        raise missing_artifact_error(record, f"{folder} {problem}")
    return folder


def _nothing_quantized(record: Record) -> None:
    bits: Any = record.experiment.get("quant")
    if record.status == "failed":
        message = record.error["message"] if record.error else "no error was recorded"
        raise QuantizationError(
            f"run {record.key[:12]} failed before anything was quantized ({message}): mend that, and run it "
            "again"
        )
    raise QuantizationError(
        f"run {record.key[:12]} quantized nothing (quant: {bits}); inspect a run with narrower bit-widths, "
        "such as quant=w8a8"
    )


def experiment_of(record: Record) -> Experiment:
    """Return the experiment of a run, validated against the current schema.

    Raises:
        StoreError: If another version wrote the Record, and its schema differs.
    """
    from pydantic import ValidationError

    from qexp.config import Experiment

    try:
        return Experiment.model_validate(record.experiment)
    except ValidationError as error:
        raise _version_error(record, error) from None


def _quant_config(record: Record) -> QuantizationConfig:
    from pydantic import ValidationError

    from qexp.config import QuantizationConfig

    try:
        return QuantizationConfig.model_validate(
            {name: record.experiment[name] for name in QuantizationConfig.model_fields}
        )
    except (ValidationError, KeyError) as error:
        raise _version_error(record, error) from None


def _version_error(record: Record, error: ValidationError | KeyError) -> StoreError:
    return StoreError(
        f"run {record.key[:12]}: its Record is of another version of qexp ({type(error).__name__}: "
        f"{str(error).splitlines()[0]}); run the experiment again, or use that version"
    )


def _listed(records: Sequence[Record], most: int = 10) -> str:
    newest = sorted(records, key=lambda record: record.finished_at, reverse=True)
    lines = [f"  {record.key[:12]}  {_summary(record)}" for record in newest[:most]]
    return "\n".join([*lines, *([f"  and {len(newest) - most} older ones"] if len(newest) > most else [])])


def _summary(record: Record) -> str:
    experiment: Any = record.experiment
    try:
        bits = experiment["quant"]
        width = f"w{bits['weight_bits']}a{bits['activation_bits']}"
        names = experiment["task"]["name"], experiment["model"]["name"], width, experiment["method"]["kind"]
        return f"{' '.join(names)} seed {experiment['seed']}"
    except (KeyError, TypeError):
        return record.finished
