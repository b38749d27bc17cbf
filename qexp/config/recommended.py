"""Numbers of trainings that a model or a task recommends in its YAML file, checked before any is used."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from qexp.config.base import Section
from qexp.config.training import Schedule

TASKS = (
    *("ax", "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli", "squad", "squad_v2"),
    *("multi30k_en_de", "wmt14_en_de"),
)
"""Names of the tasks in ``conf/task``; a test compares the two."""
EVERY_TASK = "default"
"""Key of a model's numbers for tasks that it has none of their own for."""


class TrainingNumbers(Section):
    """Fields of ``finetune`` that a file may fill in; null leaves one to the next source."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of AdamW."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the train split."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows in a batch."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decoupled weight decay."""
    warmup: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps over which the rate rises from 0."""
    schedule: Schedule | None = None
    """How the rate falls after the warm-up."""
    beta2: float | None = Field(default=None, ge=0, lt=1)
    """AdamW's decay of the mean square of gradients."""


class FurtherNumbers(Section):
    """Fields of ``method`` that a task may fill in, with quantizers or without."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the weights."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the train split."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout during this training."""


class OfTask(Section):
    """What a task recommends for its trainings."""

    finetune: TrainingNumbers | None = None
    """Of FP32 fine-tuning."""
    qat: FurtherNumbers | None = None
    """Of quantization-aware training, and of its control."""


class OfModel(Section):
    """What a model recommends for its fine-tuning."""

    finetune: dict[str, TrainingNumbers | None] | None = None
    """By the task's name, and ``default`` for all others."""


class Recommended(Section):
    """All of them, where they stand in the composed tree."""

    task: OfTask
    model: OfModel

    @classmethod
    def check(cls, task: dict[str, Any], model: dict[str, Any]) -> None:
        """See that these sections of a tree recommend nothing that does not exist.

        Raises:
            ValueError: pydantic's, with the place of each wrong field.
        """
        parts = {"task": {key: task[key] for key in ("finetune", "qat") if key in task}}
        parts["model"] = {key: model[key] for key in ("finetune",) if key in model}
        cls.model_validate(parts, context={"task": task.get("name")})

    @model_validator(mode="after")
    def _tasks_that_are_known(self, info: Any) -> Recommended:
        chosen = (info.context or {}).get("task")
        known = [EVERY_TASK, *TASKS]
        unknown = [name for name in self.model.finetune or {} if name not in known and name != chosen]
        if unknown:
            raise ValueError(_unknown_tasks(unknown, known))
        return self


def _unknown_tasks(names: list[str], known: list[str]) -> str:
    import difflib

    nearest = [near[0] for name in names if (near := difflib.get_close_matches(name, known, n=1))]
    hint = f"; did you mean {' and '.join(nearest)}?" if nearest else ""
    return (
        f"model.finetune: no task is called {' or '.join(names)}; allowed are {', '.join(known)}; a task of "
        f"your own brings its numbers in its own file, as task.finetune{hint}"
    )
