"""Published folders: names of the files that qexp reads again, and the model in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from qexp.artifacts.types import Tokens
from qexp.config import AnyTask, QuantizationConfig, Task
from qexp.context import RunContext, device_of, set_threads
from qexp.errors import StoreError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RANGES, QUANTIZATION, TASK = "ranges.safetensors", "quantization.json", "task.json"
INTEGERS = "integer"
"""Folder of the integer checkpoint, in a published folder."""


class PublishedTokens(Tokens):
    """Tokenizer of a published folder, which has no tokenized rows."""

    @property
    def pad_id(self) -> int:
        """Token id that pads the shorter rows of a batch."""
        return int(_read(self.folder / TASK)["pad_id"])

    @property
    def tokenizer(self) -> Path:
        """Folder with the tokenizer's files, and all others."""
        return self.folder


@dataclass(frozen=True)
class PublishedModel:
    """Model of a published folder, or of the folder of its integer checkpoint."""

    folder: Path
    title: str
    """Short description of the model and its run."""
    task: Task
    tokens: PublishedTokens
    quant_config: QuantizationConfig | None
    """Quantization of the model; None in floating point."""

    @property
    def columns(self) -> dict[str, str | None]:
        """Names of columns besides those of the task: none, as a folder does not know the rows of its run."""
        return {}

    @property
    def config(self) -> Path:
        """File of the model's configuration."""
        return self.folder / "config.json"

    def load(self, ctx: RunContext) -> PreTrainedModel:
        """Load the model as its run evaluated it, with frozen quantizers if it has any.

        Raises:
            ModelError: The weights cannot be read.
            QuantizationError: The ranges do not fit the model.
        """
        from safetensors.torch import load_file

        from qexp.models.integer_loading import load_checkpoint
        from qexp.quant.insertion.insert import insert

        set_threads(ctx.threads)
        model: PreTrainedModel = load_checkpoint(self.folder)
        if self.quant_config is not None:
            quantization = insert(model, self.quant_config)
            quantization.load_ranges(load_file(self.folder / RANGES))
            quantization.freeze()
        on_device: PreTrainedModel = model.eval().to(device_of(ctx.machine))
        return on_device


def task_file(title: str, task: Task, pad_id: int) -> str:
    """Return the content of ``task.json``."""
    content = {"title": title, "pad_id": pad_id, "task": task.model_dump(mode="json")}
    return json.dumps(content, indent=1)


def published(folder: Path) -> PublishedModel:
    """Return the model of a folder that ``qexp publish`` wrote.

    Raises:
        StoreError: The folder is none, or another version wrote it.
    """
    content = _read(folder / TASK)
    config = _read(folder / QUANTIZATION) if (folder / QUANTIZATION).exists() else None
    fields = QuantizationConfig.model_fields
    try:
        task: Task = TypeAdapter(AnyTask).validate_python(content["task"])
        quant_config = (
            None
            if config is None
            else QuantizationConfig.model_validate({name: config[name] for name in fields if name in config})
        )
        title = str(content["title"])
    except (KeyError, TypeError, ValidationError) as error:
        raise StoreError(
            f"{folder}: {TASK} or {QUANTIZATION} is of another version ({str(error).splitlines()[0]}); "
            "publish the run again"
        ) from error
    return PublishedModel(
        folder, title, task=task, tokens=PublishedTokens(folder, ""), quant_config=quant_config
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{file}: cannot be read ({error}); name a run, or a folder that qexp publish wrote"
        ) from error
    return content
