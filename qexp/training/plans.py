"""Plans of all trainings: descriptions small enough to be sent to a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from qexp.artifacts.types import ModelArtifact, QatArtifact, Ranges, Tokens
from qexp.config import (
    AnyCalibrator,
    BatchSize,
    ContinuedTraining,
    Finetune,
    NoFinetune,
    Qat,
    QuantizationConfig,
    Task,
    TrainingSetup,
)
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.microbatches import BatchSplit, MicroBatches
from qexp.models.distillation import Teacher, open_attention
from qexp.models.loading import load_saved, save, set_dropout
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.insertion.training_mode import delay_head, start_training
from qexp.tasks import adapter_for
from qexp.tasks.base import TaskAdapter
from qexp.tasks.fit import check_fit
from qexp.tasks.module import Optimization, TaskModule
from qexp.training.holdout import Holdout
from qexp.training.rows import TrainBatches, draw_rows
from qexp.training.selection import Selection, marks


class TrainingPlan(Protocol):
    """Description of a training, from which each process builds the same module and its part of the steps."""

    @property
    def title(self) -> str:
        """Name of the training in messages and the progress bar."""

    @property
    def training_setup(self) -> TrainingSetup:
        """Settings that fine-tuning and quantization-aware training share."""

    def steps(self, parts: BatchSplit) -> MicroBatches:
        """Return the batches of all steps, restricted to the parts of one process."""

    def selection(self, steps: MicroBatches) -> Selection | None:
        """Return how the weights to keep are chosen; None keeps the last ones."""

    def module(self, steps: int, parts: BatchSplit) -> TaskModule:
        """Build the module to train, with a schedule of ``steps`` optimizer steps."""

    def save(self, module: TaskModule, folder: Path) -> Mapping[str, Any]:
        """Write the trained module to the folder of its artifact, and return facts for its manifest."""


@dataclass(frozen=True)
class FinetunePlan:
    """Fine-tuning of a pretrained model, or training from scratch, with FP32 weights."""

    tokens: Tokens
    start: Checkpoint | ScratchModel
    task: Task
    training: Finetune
    training_setup: TrainingSetup

    @property
    def title(self) -> str:
        return f"fine-tune {self.task.name}"

    def steps(self, parts: BatchSplit) -> MicroBatches:
        plan, setup = self.training, self.training_setup
        split = train_split(self.tokens, self.task)
        size = BatchSize.of(plan)
        batches = TrainBatches(
            self.tokens, self.task, size, plan.epochs, setup=setup, max_steps=plan.max_steps
        )
        return batches.of(draw_rows(split, setup, plan.holdout).trained, split, parts)

    def selection(self, steps: MicroBatches) -> Selection | None:
        plan = self.training
        if plan.holdout is None and plan.average is None:
            return None
        split = train_split(self.tokens, self.task)
        rows = draw_rows(split, self.training_setup, plan.holdout).held_out
        return Selection(
            marks=marks(steps, plan.evaluate_steps),
            judge=Holdout(self.tokens, self.task, rows) if len(rows) else None,
            patience=plan.patience,
            average=plan.average or 1,
            best=plan.average is None or plan.average_of == "best",
        )

    def module(self, steps: int, parts: BatchSplit) -> TaskModule:
        """Build the module of a model whose missing weights, such as the head, are drawn from the seed."""
        plan, seed = self.training, self.training_setup.seed
        adapter = adapter_for(self.task)
        model = adapter.pretrained(self.start, self.tokens, seed)
        check_fit(model, self.tokens, self.task)
        return adapter.training_module(model, Optimization.of(plan, steps, seed))

    def save(self, module: TaskModule, folder: Path) -> dict[str, Any]:
        """Write the model in the format of transformers."""
        save(module.model.cpu(), ModelArtifact(folder, "").model)
        return {}


@dataclass(frozen=True)
class ControlPlan:
    """Continued training of the FP32 model, the same as quantization-aware training without quantizers."""

    tokens: Tokens
    encoder: ModelArtifact
    task: Task
    method: ContinuedTraining
    training: Finetune | NoFinetune
    """Fine-tuning section, which sets what the method leaves null."""
    training_setup: TrainingSetup
    fp32: ModelArtifact
    """FP32 model of the run: teacher of a distillation, and the training that a schedule may continue."""

    @property
    def title(self) -> str:
        return f"control {self.task.name}"

    def steps(self, parts: BatchSplit) -> MicroBatches:
        method, setup = self.method, self.training_setup
        split = train_split(self.tokens, self.task)
        size = BatchSize.continuing(method, self.training)
        batches = TrainBatches(self.tokens, self.task, size, method.epochs, setup=setup)
        return batches.of(draw_rows(split, setup).trained, split, parts)

    def selection(self, steps: MicroBatches) -> Selection | None:
        return None

    def module(self, steps: int, parts: BatchSplit) -> TaskModule:
        """Build the module of the FP32 model."""
        return self._task_module(self._model(), steps)

    def save(self, module: TaskModule, folder: Path) -> dict[str, Any]:
        """Write the model in the format of transformers."""
        save(module.model.cpu(), ModelArtifact(folder, "").model)
        return {}

    def _model(self) -> PreTrainedModel:
        model = load_saved(self.encoder.model)
        set_dropout(model, self.method.dropout)
        open_attention(model, self.method.distillation)
        return model

    def _task_module(
        self, model: PreTrainedModel, steps: int, quantization: QuantizedModel | None = None
    ) -> TaskModule:
        adapter, method = adapter_for(self.task), self.method
        facts = self.fp32.facts if method.schedule == "continued" else {}
        seed = self.training_setup.seed
        optimization = Optimization.continuing(
            method,
            self.training,
            steps,
            seed=seed,
            previous_steps=int(facts.get("steps", 0)),
            planned_steps=facts.get("planned_steps"),
        )
        return adapter.training_module(model, optimization, quantization, self._teacher(adapter))

    def _teacher(self, adapter: TaskAdapter) -> Teacher | None:
        """Return the teacher, the FP32 model of the run, if distillation is enabled."""
        plan = self.method.distillation
        if not plan.enabled:
            return None
        return Teacher(load_saved(self.fp32.model), plan, adapter.distance, adapter.loss_counts_per_row)


@dataclass(frozen=True)
class QatPlan(ControlPlan):
    """Quantization-aware training of a calibrated model."""

    method: Qat
    ranges: Ranges
    quant_config: QuantizationConfig
    recalibrator: AnyCalibrator | None = None
    """Calibrator that recomputes the weight ranges; None keeps those of the training."""
    counts_padding: bool = False
    """Whether padding counts in ranges that move in training."""

    @property
    def title(self) -> str:
        return f"QAT {self.task.name} {self.quant_config.quant.name}"

    def module(self, steps: int, parts: BatchSplit) -> TaskModule:
        """Build the module with quantizers, whose ranges are learned, moving averages, or fixed."""
        model = self._model()
        quantization = insert(model, self.quant_config)
        quantization.load_ranges(load_file(self.ranges.file))
        quantization.split(parts.count)
        quantization.counts_padding = self.counts_padding
        start_training(quantization, self.method, self.recalibrator)
        return self._task_module(model, steps, quantization)

    def save(self, module: TaskModule, folder: Path) -> dict[str, Any]:
        """Write float weights in the format of transformers and the final ranges; return quantizer counts."""
        quantization, out = module.quantization, QatArtifact(folder, "")
        assert isinstance(quantization, QuantizedModel)
        module.cpu()
        delay_head(quantization, steps=0, step=0)
        if self.recalibrator is not None:
            quantization.freeze()
            quantization.calibrate_weights(self.recalibrator)
        save_file(quantization.ranges(), out.file)
        quantization.remove()
        save(module.model, out.model)
        return quantization.describe()


def train_split(tokens: Tokens, task: Task) -> Any:
    """Return the tokenized train split of a task."""
    return adapter_for(task).split(tokens.split(task.train))
