"""Loading of models with a task head, from pretrained or fine-tuned checkpoints or from artifacts.

Only safetensors are read; ``use_safetensors=True`` makes transformers refuse all other formats.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from qexp.config import MultiLabelTask, RerankingTask, TextTask, TokenTask
from qexp.data.sources.class_names import label_order
from qexp.errors import ModelError
from qexp.models.pooling import SENTENCE, pool

POOLERS = ("pooler", "sequence_summary")
"""Parts of a base model that belong to a head, and that a pretrained encoder may lack."""

RATES = ("dropout", "attention_dropout", "activation_dropout")
"""Attributes that hold dropout rates in modules of encoder-decoder models."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
"""Names of the tensors of a batch that a model's ``forward`` may take."""


LabelledTask = TextTask | MultiLabelTask | RerankingTask | TokenTask


def load_pretrained(folder: Path, task: LabelledTask, seed: int) -> PreTrainedModel:
    """Load a pretrained encoder with a new head for texts or for their tokens, initialized from ``seed``.

    Raises:
        ModelError: If weights below the head are missing, or the folder holds no encoder.
    """
    labels = dict(enumerate(task.labels)) or {0: "score"}
    return load_new_head(
        folder,
        _auto(task),
        seed,
        num_labels=task.outputs,
        problem_type="multi_label_classification" if isinstance(task, MultiLabelTask) else None,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )


def load_new_head(folder: Path, auto: Any, seed: int, **overrides: Any) -> PreTrainedModel:
    """Load a pretrained encoder with a new head, initialized from ``seed``.

    Args:
        folder: Folder of the checkpoint.
        auto: ``AutoModelFor…`` class of transformers for the head.
        seed: Seed of the weights that the checkpoint lacks.
        overrides: Config fields that the head needs.

    Raises:
        ModelError: If weights below the head are missing, or the folder holds no encoder.
    """
    torch.manual_seed(seed)
    model, missing = _load(folder, auto, ignore_mismatched_sizes=True, **overrides)
    _check_encoder(model, auto, folder)
    prefix = f"{model.base_model_prefix}."  # what is outside the base model is its head, whatever its name
    _check_body(
        [name for name in missing if name.startswith(prefix) and name.split(".")[1] not in POOLERS], folder
    )
    return model


def load_with_head(folder: Path, auto: Any) -> PreTrainedModel:
    """Load a checkpoint that has all weights of the ``AutoModelFor…`` class.

    Raises:
        ModelError: If the checkpoint has no head.
    """
    model, missing = _load(folder, auto)
    _check_encoder(model, auto, folder)
    if missing:
        raise ModelError(
            f"finetune=none: {folder} has no fine-tuned head ({missing[0]} is missing); "
            "use finetune=full, or model.name=… of a checkpoint that is fine-tuned for the task"
        )
    return model


def load_finetuned(folder: Path, task: LabelledTask) -> PreTrainedModel:
    """Load a checkpoint with a fine-tuned head, and reorder its outputs to match ``task.labels``.

    Raises:
        ModelError: If the checkpoint has no head, another number of outputs, or labels of other names.
    """
    model = load_with_head(folder, _auto(task))
    if model.config.num_labels != task.outputs:
        raise ModelError(
            f"finetune=none: the head of {folder} has {model.config.num_labels} outputs, "
            f"task={task.name} needs {task.outputs}; choose a checkpoint fine-tuned for this task"
        )
    if task.labels:
        _reorder_head(model, label_order(model.config.id2label or {}, task.labels))
        model.config.id2label = dict(enumerate(task.labels))
        model.config.label2id = {name: index for index, name in enumerate(task.labels)}
    if isinstance(task, MultiLabelTask):
        model.config.problem_type = "multi_label_classification"
    return model


def load_embedder(folder: Path, pooling: str) -> PreTrainedModel:
    """Load the base model of a checkpoint, with a pooling that makes a vector of each text.

    Raises:
        ModelError: If weights are missing, or the folder holds no encoder.
    """
    model, missing = _load(folder, AutoModel, sentence_pooling=pooling)
    _check_encoder(model, AutoModel, folder)
    _check_body([name for name in missing if name.split(".")[0] not in POOLERS], folder)
    return pool(model)


def load_saved(folder: Path) -> PreTrainedModel:
    """Load a model that an earlier stage saved, with the class and the pooling that its config names."""
    (name,) = AutoConfig.from_pretrained(folder, trust_remote_code=False).architectures
    return pool(_load(folder, getattr(transformers, name))[0])


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write config and safetensors in the form that :func:`load_saved` reads."""
    with quiet_transformers():
        model.save_pretrained(folder)


def set_dropout(model: nn.Module, rate: float | None) -> None:
    """Set the rate of all dropout layers and dropout attributes; None keeps the model's own rates."""
    if rate is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in RATES:
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, rate)


def model_inputs(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors in :data:`INPUTS` that the model's ``forward`` takes.

    A model with one token type only, such as XLM-R, is not given any, whatever its tokenizer makes.
    """
    parameters = inspect.signature(model.forward).parameters
    types = getattr(getattr(model, "config", None), "type_vocab_size", 2)
    taken = [name for name in INPUTS if types > 1 or name != "token_type_ids"]
    return tuple(name for name in taken if name in parameters)


def arguments(model: Any, names: Sequence[str], batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of the model's ``forward`` for a batch; a decoder reads the right-shifted labels.

    Args:
        model: Model to call.
        names: Names from :func:`model_inputs`.
        batch: Padded batch; for a decoder with ``labels`` [B, T], -100 in padding.
    """
    if "decoder_input_ids" not in names:
        return {name: batch[name] for name in names}
    shifted = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    tensors = {**batch, "decoder_input_ids": shifted}
    return {"use_cache": False, **{name: tensors[name] for name in names}}


def logits_of(output: Any) -> Tensor:
    """Return the logits of a head, [B, …]; those of the start and the end of an answer stacked, [B, T, 2].

    Of a model with a pooling, these are the embeddings, [B, D].
    """
    if SENTENCE in output:
        embeddings: Tensor = output[SENTENCE]
        return embeddings
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    logits: Tensor = output.logits
    return logits


def _load(folder: Path, auto: Any, **overrides: Any) -> tuple[PreTrainedModel, list[str]]:
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            model, info = auto.from_pretrained(
                folder,
                config=_overridden(config, overrides),
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=overrides.get("ignore_mismatched_sizes", False),
                output_loading_info=True,
                local_files_only=True,
            )
        except Exception as error:  # transformers builds what config.json says, which may raise anything
            first = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"model.name={folder}: cannot be loaded as {auto.__name__}: {first}; correct its "
                "config.json, or save the model again"
            ) from error
    missing = sorted({*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])})
    return model.eval(), missing


def _auto(task: LabelledTask) -> Any:
    return (
        AutoModelForTokenClassification if isinstance(task, TokenTask) else AutoModelForSequenceClassification
    )


def _check_body(missing: Sequence[str], folder: Path) -> None:
    """Check that a checkpoint lacks no weight below the head."""
    if not missing:
        return
    example = f"{len(missing)} weights of the encoder, such as {missing[0]}"
    lacks = f"model.name={folder}: the checkpoint lacks {example}"
    if there := _other_name(missing[0], folder):
        raise ModelError(
            f"{lacks}, and has {there}: it was saved from a model around it; save the model inside with "
            "save_pretrained, or rename its weights"
        )
    raise ModelError(f"{lacks}; choose a checkpoint of the architecture that its config.json names")


def _other_name(name: str, folder: Path) -> str | None:
    """Return the name under which a checkpoint has a weight with a wrapper's prefix; None if it has not."""
    path, tail = folder / "model.safetensors", name.partition(".")[2]
    if not path.is_file() or not tail:
        return None
    with safe_open(path, "pt") as file:
        return next((key for key in file.keys() if key.endswith(f".{tail}")), None)  # noqa: SIM118


def _check_encoder(model: PreTrainedModel, auto: Any, folder: Path) -> None:
    if model.config.is_encoder_decoder and auto is not AutoModelForSeq2SeqLM:
        raise ModelError(
            f"model.name={folder}: {type(model).__name__} has a decoder beside its encoder, which only a "
            "translation uses; choose an encoder, or task=translation"
        )


def _overridden(config: Any, overrides: dict[str, Any]) -> Any:
    for name, value in overrides.items():
        if name != "ignore_mismatched_sizes":
            setattr(config, name, value)
    return config


def _reorder_head(model: PreTrainedModel, order: list[int]) -> None:
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    if head.out_features != len(order):
        raise ModelError(
            f"finetune=none: no output layer of width {len(order)} found in {type(model).__name__}"
        )
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        if head.bias is not None:
            head.bias.copy_(head.bias[order].clone())


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress transformers' loading report and progress bar, as this module checks the report and raises."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
