"""Size of the batches of a training, in rows or in tokens, and what does not go with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from qexp.config.deploy import Machine
from qexp.config.task import Task
from qexp.config.training import AnyMethod, ContinuedTraining, Finetune, NoFinetune


@dataclass(frozen=True)
class BatchSize:
    """Size of the batches of a training: a number of rows, or of padded tokens."""

    rows: int
    """Rows in a batch; unread with ``tokens``."""
    tokens: int | None = None
    """Largest product of the rows of a batch and the tokens of its longest row; None counts rows."""
    section: str = "finetune"
    """Section of the experiment that says so."""

    @classmethod
    def of(cls, finetune: Finetune | NoFinetune) -> Self:
        """Return the size of the batches of fine-tuning."""
        return cls(finetune.batch_size, finetune.batch_tokens)

    @classmethod
    def continuing(cls, method: ContinuedTraining, finetune: Finetune | NoFinetune) -> Self:
        """Return the size of the batches of a training that follows: its own, or that of fine-tuning."""
        if method.batch_size is None and method.batch_tokens is None:
            return cls.of(finetune)
        return cls(method.batch_size or finetune.batch_size, method.batch_tokens, "method")

    def mean_rows(self, tokens: float) -> float:
        """Return the rows of a batch whose rows have so many tokens on average, without their padding."""
        return float(self.rows) if self.tokens is None else max(1.0, self.tokens / tokens)

    def check(self, task: Task, machine: Machine) -> None:
        """Check that a batch has a row for each of its parts, and room for the longest row.

        Raises:
            ValueError: It has not.
        """
        if self.tokens is not None and self.tokens < task.max_length:
            raise ValueError(
                f"{self.section}.batch_tokens={self.tokens} with task.max_length={task.max_length}: a row "
                f"may have more tokens than a batch; use {self.section}.batch_tokens={task.max_length} or "
                "more, or lower task.max_length"
            )
        if self.tokens is None and machine.parts > self.rows:
            raise ValueError(
                f"machine.devices={machine.devices} and machine.accumulate={machine.accumulate}: they "
                f"split each batch into {machine.parts} parts, but {self.section}.batch_size={self.rows}; "
                f"lower them, so that their product is at most {self.rows}, or raise "
                f"{self.section}.batch_size"
            )


def check_batches(
    finetune: Finetune | NoFinetune, method: AnyMethod, *, task: Task, machine: Machine
) -> None:
    """Check the batches of all trainings of a run.

    Raises:
        ValueError: They do not go with the task or the machine.
    """
    BatchSize.of(finetune).check(task, machine)
    if isinstance(method, ContinuedTraining):
        BatchSize.continuing(method, finetune).check(task, machine)
