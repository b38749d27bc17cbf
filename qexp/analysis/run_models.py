"""Float and quantized models of a run, in the form that stages take, and their ONNX graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qexp.analysis.decisions import decided_task
from qexp.analysis.find_run import experiment_of, folder_of, stages_of, unfinished
from qexp.artifacts.run_model import RunModel
from qexp.artifacts.types import Graph, ModelArtifact, Ranges, Tokens
from qexp.config import Experiment, Machine, Task, TranslationTask
from qexp.context import RunContext
from qexp.errors import ConfigError, DeployError, QuantizationError, StoreError
from qexp.naming import StageName
from qexp.pipeline.stages import export
from qexp.records.record import Record

ModelName = Literal["fp32", "control", "ptq", "qat"]
LEFT_BY: dict[ModelName, str] = {
    "fp32": StageName.FP32,
    "control": StageName.CONTROL,
    "ptq": StageName.RANGES,
    "qat": StageName.QAT,
}
"""Pipeline stage that produces each model, by the name of the model, in the order of the pipeline."""
QUANTIZED: tuple[ModelName, ...] = ("ptq", "qat")


@dataclass(frozen=True, kw_only=True)
class StoredModel(RunModel):
    """Float or quantized model of a run in the store."""

    record: Record
    experiment: Experiment
    name: ModelName
    tokens: Tokens
    """Tokenized rows of the run, and its tokenizer."""

    @property
    def task(self) -> Task:
        """Task of the run, with the thresholds that were chosen for the model."""
        return decided_task(self.experiment.task, self.record, self.name)

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Names that columns of the task have in the run's own file."""
        return self.experiment.data.columns

    @property
    def config(self) -> Path:
        """File of the model's configuration."""
        return self.encoder.model / "config.json"

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """Precision of its large matmuls, as runtimes name it."""
        return "int8" if self.quant_config else "fp32"

    @property
    def title(self) -> str:
        """Short description of the model and its run."""
        name = self.experiment.model.name.rstrip("/").rsplit("/", 1)[-1]
        quant = f"{self.quant_config.quant.name} " if self.quant_config else ""
        return f"{self.task.name} {name} {quant}{self.name}, run {self.record.key[:12]}"


def model_of(
    record: Record, outputs: Path, name: ModelName | None = None, *, quantized: bool | None = None
) -> StoredModel:
    """Return a model of a run.

    Args:
        record: Record of the run.
        outputs: Folder of the store.
        name: Name of the model; None for the last one that fits ``quantized``.
        quantized: Whether the model must be quantized, or must not be; None for either.

    Raises:
        StoreError: If the run failed, an artifact is missing or damaged, or another version wrote the Record.
        QuantizationError: If the run has no such model.
        ConfigError: If the named model does not fit ``quantized``.
    """
    name = name or _last(record, quantized)
    if quantized is not None and quantized is not (name in QUANTIZED):
        sort = "quantized: use a precision of int8" if name in QUANTIZED else "not: use fp32, fp16 or bf16"
        raise ConfigError(f"--precision: the model {name} of a run is {sort}, or another --stage")
    experiment = experiment_of(record)
    tokens = Tokens(*_artifact(record, StageName.TOKENS, outputs))
    quant_config, ranges = None, None
    if name in ("ptq", "qat"):
        weights, folder = (_artifact(record, stage, outputs) for stage in stages_of(record, name))
        quant_config, ranges = experiment.quant_config, Ranges(*folder)
    else:
        weights = _artifact(record, LEFT_BY[name], outputs)
    return StoredModel(
        encoder=ModelArtifact(*weights),
        quant_config=quant_config,
        ranges=ranges,
        record=record,
        experiment=experiment,
        name=name,
        tokens=tokens,
    )


def graph_of(model: StoredModel, ctx: RunContext) -> Graph:
    """Return the ONNX graph of a model from the store, or export it now.

    Raises:
        DeployError: If the model is a translator, or the export fails.
    """
    if isinstance(model.task, TranslationTask):
        raise DeployError(
            f"{model.title}: translation models are not exported to one graph; use --runtime torch"
        )
    if not (model.record.bytes or {}).get(model.precision):
        ctx.console.info(f"run {model.record.key[:12]} exported no {model.precision} graph: exporting it now")
    return ctx.run_stage(
        export.STAGE,
        encoder=model.encoder,
        quant_config=model.quant_config,
        ranges=model.ranges,
        tokens=model.tokens,
        task=model.task.without_decoding,
        cache_bits=None,
    )


def runtime_of(
    record: Record, outputs: Path, accelerator: Literal["cpu", "gpu"] | None, threads: int | None = None
) -> RunContext:
    """Return a context with the machine section of the run, except for the given accelerator and threads."""
    machine: Machine = experiment_of(record).machine
    options = {"accelerator": accelerator, "threads": threads}
    return RunContext.at(
        outputs, machine.model_copy(update={name: value for name, value in options.items() if value})
    )


def refuse_failed(record: Record) -> None:
    """Refuse a failed or interrupted run.

    Raises:
        StoreError: If the run failed, or was interrupted.
    """
    if problem := unfinished(record):
        raise StoreError(problem)


def _last(record: Record, quantized: bool | None) -> ModelName:
    refuse_failed(record)
    available = models_in(record)
    matches = [name for name in available if quantized in (None, name in QUANTIZED)]
    if not matches:
        sort = "quantized" if quantized else "float"
        raise QuantizationError(
            f"run {record.key[:12]} has no {sort} model, only {', '.join(available) or 'none'}: leave "
            "--precision out, or choose another run"
        )
    return matches[-1]


def models_in(record: Record) -> list[ModelName]:
    """Return the names of the models of a run, in the order of the pipeline."""
    visited: Iterable[str] = {visit["stage"] for visit in record.stages}
    return [name for name, stage in LEFT_BY.items() if stage in visited]


def _artifact(record: Record, stage: str, outputs: Path) -> tuple[Path, str]:
    """Return folder and key of the artifact of a run's stage."""
    folder = folder_of(record, stage, outputs)
    return folder, folder.name
