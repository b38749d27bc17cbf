"""Rows and checkpoint of an experiment, and what they tell of it before its first stage."""

from __future__ import annotations

from dataclasses import replace

from qexp.config import DeployEngines, Experiment, NoFinetune, TextTask, TokenTask, TranslationTask
from qexp.config.deploy import LARGEST_FILE
from qexp.data.checkpoints import Checkpoint, ScratchModel, config_of, float_bytes, locate
from qexp.data.detection.heads import positions_of
from qexp.data.metrics.bleu import DEFAULT, scorer
from qexp.data.sources.class_names import notes_on_head
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.data.sources.scripts import bleu_tokenizer
from qexp.errors import DeployError

SAMPLED_TEXTS = 200
"""Translations whose letters are looked at."""


def resolve_inputs(
    experiment: Experiment, *, sweep: bool = False
) -> tuple[SourceRows, Checkpoint | ScratchModel]:
    """Load the rows and locate the weights that an experiment starts from.

    The rows hold the task with what the experiment left open (:meth:`Experiment.with_task`).

    Raises:
        DataError: The rows are not available; ``data=auto`` never falls back on the sample in a sweep.
        ModelError: The checkpoint is not available.
        ConfigError: The tokenizer of BLEU cannot be made.
    """
    rows = resolve(experiment.data, experiment.task, sweep=sweep)
    experiment = experiment.with_task(rows.task)
    checkpoint = locate(experiment.model)
    notes = (*rows.notes, *_head_notes(experiment, checkpoint), *_row_notes(experiment, rows))
    notes += (
        *_bleu_notes(experiment, rows),
        *_length_notes(experiment, checkpoint),
        *_size_notes(experiment, checkpoint),
    )
    return replace(rows, notes=notes), checkpoint


def _size_notes(experiment: Experiment, checkpoint: Checkpoint | ScratchModel) -> tuple[str, ...]:
    """Return a note on an FP32 graph that one ONNX file cannot hold.

    Raises:
        DeployError: It is the only one of the run.
    """
    if experiment.deploy.kind == "none" or not isinstance(checkpoint, Checkpoint):
        return ()
    if (size := float_bytes(checkpoint)) <= LARGEST_FILE:
        return ()
    large = f"model.name={checkpoint.name}: its FP32 graph takes {size:,} bytes, and one ONNX file holds"
    if not experiment.quant.enabled:
        raise DeployError(
            f"{large} {LARGEST_FILE:,}; set deploy=none, or choose quant=w8a8 or a smaller model"
        )
    return (f"{large} {LARGEST_FILE:,}: the quantized graph is exported alone",)


def completed(experiment: Experiment, rows: SourceRows, checkpoint: Checkpoint | ScratchModel) -> Experiment:
    """Return the experiment with what rows and checkpoint tell: task, and lengths that the model takes."""
    experiment, deploy = experiment.with_task(rows.task), experiment.deploy
    lengths = _lengths(experiment, checkpoint)
    if not isinstance(deploy, DeployEngines) or lengths == deploy.lengths:
        return experiment
    return experiment.model_copy(update={"deploy": deploy.model_copy(update={"lengths": lengths})})


def _lengths(experiment: Experiment, checkpoint: Checkpoint | ScratchModel) -> tuple[int, ...]:
    """Return the lengths that engines are timed at, cut to the model's positions; none without engines."""
    deploy, most = experiment.deploy, _positions(checkpoint)
    if not isinstance(deploy, DeployEngines):
        return ()
    if most is None or deploy.beams is not None or max(deploy.lengths) <= most:
        return deploy.lengths
    return tuple(dict.fromkeys(min(length, most) for length in deploy.lengths))


def _positions(checkpoint: Checkpoint | ScratchModel) -> int | None:
    """Return the longest row that a checkpoint takes, None if unknown or if its positions are relative."""
    config = config_of(checkpoint) if isinstance(checkpoint, Checkpoint) else {}
    return None if config.get("relative_attention") else positions_of(config)


def _length_notes(experiment: Experiment, checkpoint: Checkpoint | ScratchModel) -> tuple[str, ...]:
    """Return a note on lengths of engines that exceed the model's positions."""
    deploy, lengths = experiment.deploy, _lengths(experiment, checkpoint)
    if not isinstance(deploy, DeployEngines) or lengths == deploy.lengths:
        return ()
    longest, most = max(deploy.lengths), max(lengths)
    return (f"deploy.lengths={longest}: the model has positions for {most}, and engines are timed at {most}",)


def _row_notes(experiment: Experiment, rows: SourceRows) -> list[str]:
    """Return notes on requested numbers of rows that exceed the train split."""
    available = rows.splits[experiment.task.train].num_rows
    requested = {
        "data.train_rows": experiment.data.train_rows if experiment.finetune.kind == "full" else None
    }
    if experiment.quant.enabled and not experiment.quant_config.observes_nothing:
        requested["calibration.samples"] = experiment.calibration.samples
    return [
        f"{name}={count}: the train split has {available} rows, and all are used"
        for name, count in requested.items()
        if count is not None and count > available
    ]


def _bleu_notes(experiment: Experiment, rows: SourceRows) -> tuple[str, ...]:
    """Return a note on texts that have no spaces between the words that BLEU counts.

    Raises:
        ConfigError: The tokenizer of BLEU cannot be made.
    """
    task = experiment.task
    if not isinstance(task, TranslationTask):
        return ()
    if task.bleu_tokenize != DEFAULT:
        scorer(tokenize=task.bleu_tokenize)
        return ()
    table = rows.splits[next(iter(task.evaluation.values()))]
    better = bleu_tokenizer(table[task.target].slice(0, SAMPLED_TEXTS).to_pylist())
    if better is None:
        return ()
    return (
        f"task.bleu_tokenize=13a: column {task.target!r} has no spaces between words, so that BLEU takes "
        f"whole clauses for words; set task.bleu_tokenize={better}, or char",
    )


def _head_notes(experiment: Experiment, checkpoint: Checkpoint | ScratchModel) -> tuple[str, ...]:
    """Return notes on the classes of a fine-tuned checkpoint."""
    task, finetuned = experiment.task, isinstance(experiment.finetune, NoFinetune)
    if not (finetuned and isinstance(checkpoint, Checkpoint)):
        return ()
    if not (isinstance(task, TextTask | TokenTask) and task.labels):
        return ()
    return notes_on_head(config_of(checkpoint), task)
