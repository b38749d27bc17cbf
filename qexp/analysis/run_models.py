"""The models that a run left, float or quantized, as stages take them; and their graphs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qexp.analysis.find_run import experiment_of, folder_of, stages_of
from qexp.artifacts.types import Encoder, Graph, Ranges, Tokens
from qexp.config import Experiment, Form, Task, TranslationTask
from qexp.context import Runtime
from qexp.errors import ConfigError, DeployError, QuantizationError, StoreError
from qexp.pipeline.stages import export
from qexp.records.record import Record
from qexp.reporting.command import command_of
from qexp.reporting.run_view import Run

ModelName = Literal["fp32", "control", "ptq", "qat"]
LEFT_BY: dict[ModelName, str] = {"fp32": "2-fp32", "control": "5-control", "ptq": "4-ranges", "qat": "5-qat"}
"""Stage of the line that makes a run have a model, by its name, in the order of the line."""
QUANTIZED: tuple[ModelName, ...] = ("ptq", "qat")


@dataclass(frozen=True)
class Model:
    """A model of the store."""

    record: Record
    experiment: Experiment
    name: ModelName
    encoder: Encoder
    form: Form | None
    """What is quantized; None in floating point."""
    ranges: Ranges | None
    tokens: Tokens
    """Rows of the run, and its tokenizer."""

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return self.experiment.task

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """Arithmetic of its large products, as runtimes name it."""
        return "int8" if self.form else "fp32"

    @property
    def title(self) -> str:
        """The model in a few words."""
        name = self.experiment.model.name.rstrip("/").rsplit("/", 1)[-1]
        quant = f"{self.form.quant.name} " if self.form else ""
        return f"{self.task.name} {name} {quant}{self.name}, run {self.record.key[:12]}"


def model_of(
    record: Record, outputs: Path, name: ModelName | None = None, *, quantized: bool | None = None
) -> Model:
    """A model of a run: that of a name, or the last one; of those that are quantized, or are not.

    Raises:
        StoreError: the run failed, an artifact is gone or damaged, or the Record is of another version.
        QuantizationError: the run has no such model.
        ConfigError: the named model is not of the sort that is asked for.
    """
    name = name or _last(record, quantized)
    if quantized is not None and quantized is not (name in QUANTIZED):
        sort = "quantized: use a precision of int8" if name in QUANTIZED else "not: use fp32, fp16 or bf16"
        raise ConfigError(f"--precision: the model {name} of a run is {sort}, or another --stage")
    experiment = experiment_of(record)
    tokens = Tokens(*_artifact(record, "1-tokens", outputs))
    if name in ("ptq", "qat"):
        weights, ranges = (_artifact(record, stage, outputs) for stage in stages_of(record, name))
        return Model(
            record, experiment, name, Encoder(*weights), experiment.form, Ranges(*ranges), tokens
        )  # fmt: skip
    encoder = Encoder(*_artifact(record, LEFT_BY[name], outputs))
    return Model(record, experiment, name, encoder, None, None, tokens)


def graph_of(model: Model, rt: Runtime) -> Graph:
    """Its ONNX file: that of the store, or one that is exported now.

    Raises:
        DeployError: the model is of a kind that is not exported, or cannot be.
    """
    if isinstance(model.task, TranslationTask):
        raise DeployError(
            f"{model.title}: translation models are not exported to one graph; use --runtime torch"
        )
    if not (model.record.bytes or {}).get(model.precision):
        rt.screen.say(f"run {model.record.key[:12]} exported no {model.precision} graph: exporting it now")
    return rt.walk(
        export.STAGE, model.encoder, model.form, model.ranges, model.tokens, model.task.taught, rt=rt
    )


def refuse_failed(record: Record) -> None:
    """See that a run came to its end.

    Raises:
        StoreError: it failed.
    """
    if record.status == "failed":
        message = (record.error["message"] if record.error else "no error was recorded").splitlines()[0]
        raise StoreError(
            f"run {record.key[:12]} failed ({message}): mend that, and run it again:\n"
            f"  {command_of(Run(record))}"
        )


def _last(record: Record, quantized: bool | None) -> ModelName:
    refuse_failed(record)
    there = models_in(record)
    fitting = [name for name in there if quantized in (None, name in QUANTIZED)]
    if not fitting:
        sort = "quantized" if quantized else "float"
        raise QuantizationError(
            f"run {record.key[:12]} has no {sort} model, only {', '.join(there) or 'none'}: leave "
            "--precision out, or choose another run"
        )
    return fitting[-1]


def models_in(record: Record) -> list[ModelName]:
    """Names of the models that a run left, in the order of the line."""
    visited: Iterable[str] = {visit["stage"] for visit in record.stages}
    return [name for name, stage in LEFT_BY.items() if stage in visited]


def _artifact(record: Record, stage: str, outputs: Path) -> tuple[Path, str]:
    """Folder and key of what a stage left to a run."""
    folder = folder_of(record, stage, outputs)
    return folder, folder.name
