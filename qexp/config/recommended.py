"""Training hyperparameters that a model or a task recommends in its YAML file, validated before use."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from qexp.config.base import Section
from qexp.config.training import Schedule

TASKS = (
    *("ax", "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli", "squad", "squad_v2"),
    *("multi30k_en_de", "wmt14_en_de", "stsb_embedding", "squad_retrieval"),
)
"""Names of the tasks in ``conf/task``; a test compares both."""
EVERY_TASK = "default"
"""Key of a model's hyperparameters for tasks without an entry of their own."""


class FinetuneDefaults(Section):
    """Fields of ``finetune`` that a file may set; null leaves a field to the next source."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of AdamW."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the train split."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows in a batch."""
    batch_tokens: int | None = Field(default=None, ge=8)
    """Padded tokens in a batch, instead of rows."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decoupled weight decay."""
    warmup: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps over which the rate rises from 0."""
    schedule: Schedule | None = None
    """How the rate falls after the warm-up."""
    beta2: float | None = Field(default=None, ge=0, lt=1)
    """AdamW's decay of the mean square of gradients."""


class MethodDefaults(Section):
    """Fields of ``method`` that a task may set, for training with or without quantizers."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the weights."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the train split."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout during this training."""


class TaskDefaults(Section):
    """Hyperparameters that a task recommends for its trainings."""

    finetune: FinetuneDefaults | None = None
    """Hyperparameters of FP32 fine-tuning."""
    qat: MethodDefaults | None = None
    """Hyperparameters of quantization-aware training, and of its control."""


class Prompts(Section):
    """Words that a model was trained to see before its texts, by the names of sentence-transformers."""

    query: str = ""
    """Before the queries of a retrieval."""
    document: str = ""
    """Before its documents."""
    text: str = ""
    """Before texts that are compared with each other (``task=embedding``)."""


class ModelDefaults(Section):
    """Hyperparameters and prompts that a model recommends, and its commit on the hub."""

    finetune: dict[str, FinetuneDefaults | None] | None = None
    """Hyperparameters by name of the task, and ``default`` for all others."""
    revisions: dict[str, str] | None = None
    """Commit on the hub by name of the model, for ``model.revision`` where it is null. A name that is set on
    the command line, such as a folder, has none."""
    prompts: Prompts | None = None
    """Words before texts, for tasks that leave their prefixes open."""


class YamlDefaults(Section):
    """Recommendations at their places in the composed configuration."""

    task: TaskDefaults
    model: ModelDefaults

    @classmethod
    def check(cls, task: dict[str, Any], model: dict[str, Any]) -> None:
        """Check the recommendations in these sections of a composed configuration.

        Raises:
            ValueError: A field does not exist or is invalid; pydantic's error, with the path of each.
        """
        parts: dict[str, Any] = {"task": {key: task[key] for key in TaskDefaults.model_fields if key in task}}
        parts["model"] = {key: model[key] for key in ModelDefaults.model_fields if key in model}
        cls.model_validate(parts, context={"task": task.get("name")})

    @model_validator(mode="after")
    def _tasks_that_are_known(self, info: Any) -> YamlDefaults:
        chosen = (info.context or {}).get("task")
        allowed = [EVERY_TASK, *TASKS]
        unknown = [name for name in self.model.finetune or {} if name not in allowed and name != chosen]
        if unknown:
            raise ValueError(_unknown_tasks(unknown, allowed))
        return self


def _unknown_tasks(names: list[str], tasks: list[str]) -> str:
    import difflib

    nearest = [near[0] for name in names if (near := difflib.get_close_matches(name, tasks, n=1))]
    hint = f"; did you mean {' and '.join(nearest)}?" if nearest else ""
    return (
        f"model.finetune: no task is called {' or '.join(names)}; allowed are {', '.join(tasks)}; a task of "
        f"your own brings its numbers in its own file, as task.finetune{hint}"
    )
