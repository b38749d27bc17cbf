"""Lookup of a run's Record by file or key, and of the artifacts of its quantized model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qexp.artifacts.run_model import RunModel
from qexp.artifacts.types import ModelArtifact, Ranges
from qexp.errors import QuantizationError, StoreError
from qexp.naming import StageName
from qexp.records.outcome import outcome, reason
from qexp.records.record import Record
from qexp.reporting.command import command_of
from qexp.reporting.run_names import announced, choose_run
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


@dataclass(frozen=True, kw_only=True)
class QuantizedRun(RunModel):
    """Quantized model of a run in the store, found without torch and without its other artifacts."""

    record: Record
    stage: QuantizedStage
    quant_config: QuantizationConfig
    ranges: Ranges

    @property
    def title(self) -> str:
        """Short description of the run."""
        experiment = self.record.experiment
        name = str(experiment["model"]["name"]).rstrip("/").rsplit("/", 1)[-1]
        quant, placement = self.quant_config.quant.name, self.quant_config.placement.name
        task = experiment["task"]["name"]
        return f"{task} {name} {quant} {placement} {self.stage}, run {self.record.key[:12]}"


def find_record(run: str, outputs: Path) -> Record:
    """Return the Record that a file, a key or a name stands for, and print why it was chosen if that is open.

    Raises:
        StoreError: If there is no such Record, or it is not clear which is meant.
    """
    return announced(choose_run(run, outputs))


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
        encoder=ModelArtifact(weights, ""),
        quant_config=quant_config,
        ranges=Ranges(ranges, ""),
        record=record,
        stage=stage,
    )
    for path in (subject.encoder.model, subject.ranges.file):
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


def unfinished(record: Record, when: str = "") -> str | None:
    """Return how a run goes on that was interrupted or failed, with the command; None if it came to its end.

    Args:
        record: Record of the run.
        when: What follows the verb, such as `` before anything was quantized``.
    """
    if (ended := outcome(record)) == "ok":
        return None
    if ended == "interrupted":
        how = f"was interrupted{when}; the same command goes on from there"
    else:
        message = next(iter(record.error["message"].splitlines()), "") if record.error else ""
        how = f"failed{when} ({message or reason(record)}): mend that, and run it again"
    return f"run {record.key[:12]} {how}:\n  {command_of(RunView(record))}"


def _nothing_quantized(record: Record) -> None:
    bits: Any = record.experiment.get("quant")
    if problem := unfinished(record, " before anything was quantized"):
        raise QuantizationError(problem)
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
