"""Which run is meant, and where its quantized model lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qexp.artifacts.types import Encoder, Ranges
from qexp.errors import QuantizationError, StoreError
from qexp.records.record import Record, read, read_all, records_folder
from qexp.reporting.command import command_of
from qexp.reporting.run_view import Run

if TYPE_CHECKING:
    from pydantic import ValidationError

    from qexp.config import Experiment, Form

StageName = Literal["ptq", "qat"]
WEIGHTS: dict[StageName, tuple[str, ...]] = {"ptq": ("4-refined", "2-equalized", "2-fp32"), "qat": ("5-qat",)}
"""Stages that may have left the weights, by the stage that is asked for: the first of them."""
RANGES: dict[StageName, str] = {"ptq": "4-ranges", "qat": "5-qat"}
"""Stages that left the ranges."""


@dataclass(frozen=True)
class Subject:
    """A quantized model in the store."""

    record: Record
    stage: StageName
    form: Form
    model: Path
    """Folder as transformers saves a model."""
    ranges: Path
    """File of the ranges."""

    @property
    def title(self) -> str:
        """The run in a few words."""
        told = self.record.experiment
        name = str(told["model"]["name"]).rstrip("/").rsplit("/", 1)[-1]
        quant, placement = self.form.quant.name, self.form.placement.name
        return f"{told['task']['name']} {name} {quant} {placement} {self.stage}, run {self.record.key[:12]}"


def find_record(run: str, outputs: Path) -> Record:
    """The Record of a file, or the only one whose key begins so.

    Raises:
        StoreError: there is none, or there are several.
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
    found = [record for record in records if record.key.startswith(run)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} Records begin so" if found else "no such file, and no Record's key begins so"
    raise StoreError(f"{run}: {what}; there are:\n{_listed(found or records)}")


def subject_of(record: Record, outputs: Path, stage: StageName | None) -> Subject:
    """The model of a stage of a run; without a stage, that of its last one.

    Raises:
        QuantizationError: the run quantized nothing, or not in that stage.
        StoreError: the artifacts are gone, or the Record is of another version.
    """
    keys = {visit["stage"]: visit["key"] for visit in record.stages}
    if "4-ranges" not in keys:
        _nothing_quantized(record)
    stage = stage or ("qat" if "5-qat" in keys else "ptq")
    if stage == "qat" and "5-qat" not in keys:
        raise QuantizationError(f"run {record.key[:12]} has no QAT, only calibrated ranges: use --stage ptq")
    form = _form(record)
    weights, ranges = (outputs / "artifacts" / name / keys[name] for name in stages_of(record, stage))
    subject = Subject(record, stage, form, Encoder(weights, "").model, Ranges(ranges, "").file)
    for path in (subject.model, subject.ranges):
        if not path.exists():
            raise gone(record, f"{path} is gone")
    return subject


def stages_of(record: Record, stage: StageName) -> tuple[str, str]:
    """Stages of the line that left the weights and the ranges of a run that was calibrated, or trained."""
    there = {visit["stage"] for visit in record.stages}
    return next((name for name in WEIGHTS[stage] if name in there), WEIGHTS[stage][-1]), RANGES[stage]


def gone(record: Record, what: str) -> StoreError:
    """What to say of an artifact that cannot be used."""
    command = command_of(Run(record))
    return StoreError(f"{what}; this makes it again, if data and checkpoint are the same:\n  {command}")


def folder_of(record: Record, stage: str, outputs: Path) -> Path:
    """Folder of the artifact that a stage left to a run, with the files that it was left with.

    Raises:
        StoreError: it is gone or damaged.
    """
    from qexp.artifacts.manifest import problem_of

    keys = {visit["stage"]: visit["key"] for visit in record.stages}
    if stage not in keys:
        raise gone(record, f"run {record.key[:12]} has no {stage}")
    folder = outputs / "artifacts" / stage / keys[stage]
    if not folder.is_dir():
        raise gone(record, f"{folder} is gone")
    if problem := problem_of(folder):
        raise gone(record, f"{folder} {problem}")
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
    """What a run was asked, as today's schema reads it.

    Raises:
        StoreError: the Record is of another version.
    """
    from pydantic import ValidationError

    from qexp.config import Experiment

    try:
        return Experiment.model_validate(record.experiment)
    except ValidationError as error:
        raise _of_another_version(record, error) from None


def _form(record: Record) -> Form:
    from pydantic import ValidationError

    from qexp.config import Form

    try:
        return Form.model_validate({name: record.experiment[name] for name in Form.model_fields})
    except (ValidationError, KeyError) as error:
        raise _of_another_version(record, error) from None


def _of_another_version(record: Record, error: ValidationError | KeyError) -> StoreError:
    return StoreError(
        f"run {record.key[:12]}: its Record is of another version of qexp ({type(error).__name__}: "
        f"{str(error).splitlines()[0]}); run the experiment again, or use that version"
    )


def _listed(records: Sequence[Record], most: int = 10) -> str:
    newest = sorted(records, key=lambda record: record.finished_at, reverse=True)
    lines = [f"  {record.key[:12]}  {_words(record)}" for record in newest[:most]]
    return "\n".join([*lines, *([f"  and {len(newest) - most} older ones"] if len(newest) > most else [])])


def _words(record: Record) -> str:
    told: Any = record.experiment
    try:
        bits = told["quant"]
        width = f"w{bits['weight_bits']}a{bits['activation_bits']}"
        names = told["task"]["name"], told["model"]["name"], width, told["method"]["kind"]
        return f"{' '.join(names)} seed {told['seed']}"
    except (KeyError, TypeError):
        return record.finished
