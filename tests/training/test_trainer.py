"""Tests of training: optimization, resumption and errors."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from transformers import (
    AutoModelForSequenceClassification,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from qexp.config import Finetune, Numerics, Qat
from qexp.data.microbatches import BatchSplit, MicroBatches
from qexp.errors import TrainingError
from qexp.tasks.classification import Classifier, task_loss
from qexp.tasks.module import Optimization
from qexp.training.distributed import resumed_at
from qexp.training.interruption import StopRequest
from qexp.training.trainer import CHECKPOINT, WorkerContext, fit
from tests.conftest import experiment, tiny_config
from tests.support.tiny_training import batch_of, largest_difference, plan, quantized, runtime, trained

STEPS = 12


def _batch(rows: np.ndarray) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(rows[:, None] % 8 + np.zeros(6, dtype=int) + 5)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "labels": torch.from_numpy(rows % 2),
    }


def _steps(count: int = STEPS) -> MicroBatches:
    generator = np.random.default_rng(0)
    return MicroBatches([generator.integers(0, 100, 8) for _ in range(count)], _batch)


def _module(rate: float = 1e-3) -> Classifier:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert", 64, num_labels=2))
    return Classifier(model, Optimization(rate, weight_decay=0.01, warmup=0.1, steps=STEPS, seed=3))


def _fit(
    module: Classifier, steps: MicroBatches, folder: Path, title: str = "tiny", seconds: float = 1e9
) -> tuple[list[float], int]:
    """Losses, and the step of the checkpoint that the training went on from."""
    resumed = resumed_at(folder / CHECKPOINT, runtime(folder))
    worker = WorkerContext(Numerics(), folder, seconds, threads=1, resumed_at=resumed)
    return fit(module, steps, title, worker, lambda *_, **__: None), resumed


def _weights(module: Classifier) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.model.parameters()])


class _Cut(Exception):
    pass


def test_a_resumed_training_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = _module()
    losses, _ = _fit(whole, _steps(), tmp_path)

    def cut_off(rows: np.ndarray) -> dict[str, torch.Tensor]:
        if steps.taken > 8:
            raise _Cut
        return _batch(rows)

    steps = _steps()
    steps.collate = cut_off
    with pytest.raises(_Cut):
        _fit(_module(), steps, tmp_path, seconds=0)
    assert (tmp_path / CHECKPOINT).exists()

    resumed = _module(rate=0.5)  # whatever is set up anew must be overwritten by the checkpoint
    resumed.optimization = whole.optimization
    rest, step = _fit(resumed, _steps(), tmp_path)
    assert step == 8
    assert rest == losses
    assert len(rest) == STEPS
    assert torch.equal(_weights(whole), _weights(resumed))


def test_a_damaged_checkpoint_is_dropped_with_a_word(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 cut off")
    ctx = runtime(tmp_path)
    assert resumed_at(tmp_path / CHECKPOINT, ctx) == 0
    assert "damaged" in ctx.console.warnings[0]
    assert not (tmp_path / CHECKPOINT).exists()


def test_training_learns(tmp_path: Path) -> None:
    module = _module()
    module.optimization = Optimization(5e-3, 0.0, 0.1, 60, 0)
    losses, _ = _fit(module, _steps(60), tmp_path)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    module = _module()
    with torch.no_grad():
        module.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="loss is nan at step 1 of 12; lower the learning rate"):
        _fit(module, _steps(), tmp_path, "fine-tune")


def test_dropout_is_at_work_in_training_and_not_after_it(tmp_path: Path) -> None:
    module = _module()
    module.model.eval()
    seen: list[bool] = []
    module.model.bert.register_forward_hook(lambda bert, *_: seen.append(bert.embeddings.dropout.training))
    _fit(module, _steps(2), tmp_path)
    assert seen == [True, True]
    assert not module.model.bert.embeddings.dropout.training


def test_schedule_rises_then_falls_to_zero() -> None:
    plan = Optimization(1.0, 0.0, warmup=0.2, steps=50, seed=0)
    factors = [plan.factor(step) for step in range(51)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[9] == max(factors) == 1.0
    assert factors[50] == 0.0
    assert all(np.diff(factors[10:]) < 0)


def test_inverse_square_root_is_that_of_attention_is_all_you_need() -> None:
    """Equation 3, ``d ** -0.5 * min(step ** -0.5, step * warmup ** -1.5)``, with the peak that it has."""
    steps, warmup, width = 4000, 400, 512
    peak = width**-0.5 * warmup**-0.5
    plan = Optimization(peak, 0.0, warmup=0.1, steps=steps, seed=0, schedule="inverse_sqrt")
    for step in range(1, steps + 1):
        paper = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert peak * plan.factor(step - 1) == pytest.approx(paper, rel=1e-9)
    assert plan.factor(warmup - 1) == 1


def test_the_optimizer_is_what_the_plan_says(tmp_path: Path) -> None:
    words = ("task=translation", "model=transformer_tiny", "finetune.beta2=0.9", "finetune.weight_decay=0.5")
    training = experiment(*words).finetune
    assert isinstance(training, Finetune)
    module = _module()
    module.optimization = Optimization.of(training, STEPS, 3)
    assert module.optimization.schedule == "inverse_sqrt"
    _fit(module, _steps(), tmp_path)
    optimizer: Any = module.optimizers()
    group = optimizer.param_groups[0]
    assert group["betas"] == (0.9, 0.9) and group["weight_decay"] == 0.5
    rise = round(training.warmup * STEPS)
    assert group["lr"] == pytest.approx(training.learning_rate * (rise / (STEPS + 1)) ** 0.5)


def test_no_warm_up_and_a_cosine_are_as_in_transformers() -> None:
    for schedule, reference in (
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
    ):
        plan = Optimization(1.0, 0.0, warmup=0.0, steps=40, seed=0, schedule=schedule)  # type: ignore[arg-type]
        rates = reference(torch.optim.SGD([torch.zeros(1)], lr=1.0), 0, 40).lr_lambdas[0]
        assert [plan.factor(step) for step in range(40)] == pytest.approx([rates(step) for step in range(40)])


def test_a_continued_schedule_is_one_training() -> None:
    whole = Optimization(1.0, 0.0, warmup=0.1, steps=100, seed=0, schedule="inverse_sqrt")
    method = Qat(kind="qat", learning_rate=1.0, schedule="continued")
    training = Finetune(learning_rate=1.0, epochs=1, schedule="inverse_sqrt")
    second = Optimization.continuing(method, training, 30, seed=0, previous_steps=100)
    assert [second.factor(step) for step in range(30)] == [whole.factor(100 + step) for step in range(30)]


def test_a_method_has_its_own_numbers_or_those_of_fine_tuning() -> None:
    training = Finetune(learning_rate=1.0, epochs=1, weight_decay=0.3, warmup=0.2)
    own = Qat(kind="qat", learning_rate=0.5, weight_decay=0.0, warmup=0.0, schedule="cosine", head_delay=7)
    for method, expected in (
        (own, (0.0, 0.0, "cosine", 7)),
        (Qat(kind="qat", learning_rate=0.5), (0.3, 0.2, "linear", 0)),
    ):
        made = Optimization.continuing(method, training, 10, seed=0, previous_steps=0)
        assert (made.weight_decay, made.warmup, made.schedule, made.head_delay) == expected


def test_loss_is_cross_entropy_or_squared_error() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = -torch.log_softmax(logits, -1)[[0, 1], [0, 1]].mean()
    assert task_loss(logits, torch.tensor([0, 1])) == pytest.approx(float(expected))
    assert task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0])) == pytest.approx(2.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "accumulate", "tolerance"),
    [
        ("float", 2, 1e-5),
        ("float", 4, 1e-5),
        ("frozen", 4, 1e-5),
        ("learned", 2, 0.02),  # LSQ's factor counts the elements of a part, padding and all
    ],
)
def test_a_batch_in_parts_takes_the_step_of_the_whole_batch(
    mode: str, accumulate: int, tolerance: float, tmp_path: Path
) -> None:
    """The last batch has 3 rows: with 4 parts, one of them has none."""
    whole, expected = trained(plan(tmp_path / "whole", last=3, mode=mode))
    split, result = trained(plan(tmp_path / "split", last=3, mode=mode, accumulate=accumulate))
    assert split["steps"] == whole["steps"] == len(split["loss"])
    assert split["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    assert largest_difference(expected, result) < tolerance


def test_dropout_differs_between_the_parts_of_a_batch(tmp_path: Path) -> None:
    seeds = []
    for parts in (BatchSplit(), BatchSplit(2, 3, 0), BatchSplit(2, 3, 2)):
        module = _module()
        module._trainer = SimpleNamespace(  # type: ignore[assignment]
            accumulate_grad_batches=parts.accumulate, world_size=parts.devices, global_rank=parts.rank,
            global_step=5,
        )  # fmt: skip
        for turn in range(parts.accumulate):
            module.on_train_batch_start({}, turn)
            seeds.append(torch.initial_seed())
    assert seeds[0] == 3 * 1_000_003 + 5, "one device and one part draw as they always did"
    assert len(set(seeds)) == len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["float", "learned", "shifted", "following"])
def test_a_training_in_parts_resumes_to_the_same_bits(mode: str, tmp_path: Path) -> None:
    numerics = {"accumulate": 3, "dropout": True, "mode": mode}
    whole, expected = trained(plan(tmp_path / "whole", **numerics))
    with pytest.raises(RuntimeError, match="no luck with part 11"):
        trained(plan(tmp_path / "cut", **numerics, trouble=("raise", 0, 10)), seconds=0)
    facts, result = trained(plan(tmp_path / "cut", **numerics))
    assert facts["resumed_at"] == 3
    assert facts["loss"] == whole["loss"]
    assert all(torch.equal(expected[name], result[name]) for name in expected)
    assert len(_moved(expected)) == {"float": 0, "learned": 0, "shifted": 22, "following": 36}[mode]


def _moved(state: dict[str, torch.Tensor]) -> list[str]:
    """What belongs to ranges that move in another way than by a learned scale."""
    return [name for name in state if name.endswith((".shift", ".ends"))]


def test_learned_zero_points_are_trained(tmp_path: Path) -> None:
    _, result = trained(plan(tmp_path, mode="shifted", count=4))
    shifts = torch.stack([result[name] for name in _moved(result)])
    assert (shifts != 0).float().mean() > 0.5
    assert float(shifts.abs().max()) < 0.05, "their rate is one of shares of the range"


def test_ranges_follow_batches_without_their_padding(tmp_path: Path) -> None:
    """A forward pass of the student tells them."""
    module = plan(tmp_path, mode="following").module(1, BatchSplit()).train()
    message: list[Any] = []
    (first,) = (
        each
        for each in module.quantization.quantizers.values()
        if "0.attention.self.query:linear.input" in each.name
    )
    first.register_forward_hook(lambda quantizer, args, _: message.append(quantizer.counted(args[0])))
    batch = batch_of(np.arange(8))
    module(batch)
    assert torch.equal(message[0][..., 0], batch["attention_mask"].bool())
    assert first.counted is None


def test_activations_come_in_parts_and_weights_do_not() -> None:
    quantization = quantized(_module().model, "learned", parts=3)
    kinds = {site.quantizer: site.kind for site in quantization.sites}
    parts = {(kinds[name] == "linear.weight", each.parts) for name, each in quantization.quantizers.items()}
    assert parts == {(True, 1), (False, 3)}


class _Signals:
    """Batches during some of which this process gets a signal."""

    def __init__(self, *taken: int, number: int = signal.SIGINT) -> None:
        self.steps = _steps()
        self.steps.collate = self._collate
        self.taken, self.number = taken, number

    def _collate(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        for _ in range(self.taken.count(self.steps.taken)):
            signal.raise_signal(self.number)
        return _batch(rows)


def test_ctrl_c_saves_the_step_and_the_same_training_goes_on_from_there(tmp_path: Path) -> None:
    whole = _module()
    losses, _ = _fit(whole, _steps(), tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        KeyboardInterrupt, match="tiny; the same command goes on from here: tiny from step"
    ) as end:
        _fit(_module(), _Signals(5).steps, tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = _module()
    rest, step = _fit(resumed, _steps(), tmp_path)
    assert step >= 4
    assert f"from step {step} of {STEPS}" in str(end.value)
    assert rest == losses
    assert torch.equal(_weights(whole), _weights(resumed))


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fit(_module(), _Signals(5).steps, tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    step = resumed_at(tmp_path / CHECKPOINT, runtime(tmp_path))
    with pytest.raises(KeyboardInterrupt, match=f"goes on from here: tiny from step {step} of"):
        _fit(_module(), _Signals(9, 9).steps, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_ctrl_c_while_a_checkpoint_is_written_never_breaks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = pl.Trainer.save_checkpoint

    def interrupted(self: pl.Trainer, path: Path, *args: Any) -> None:
        save(self, path, *args)
        path.write_bytes(path.read_bytes()[:100])
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _fit(_module(), _Signals(5).steps, tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _fit(_module(), _steps(), tmp_path, seconds=0)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_before_the_first_step_is_saved_it_says_that_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="no checkpoint yet"):
        _fit(_module(), _Signals(1, 1).steps, tmp_path)


def test_sigterm_saves_the_step_unless_another_handles_it(tmp_path: Path) -> None:
    stop = StopRequest()
    worker = WorkerContext(Numerics(), tmp_path, 1e9, threads=1)
    steps = _Signals(5, number=signal.SIGTERM).steps
    with pytest.raises(KeyboardInterrupt, match="from step"):
        fit(_module(), steps, "tiny", worker, lambda *_, **__: None, stop=stop)
    assert stop.number == signal.SIGTERM
    assert (tmp_path / CHECKPOINT).exists()
    with pytest.raises(SystemExit) as end:
        stop.end("")
    assert end.value.code == 143
    theirs = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        other = StopRequest()
        with other.listening():
            signal.raise_signal(signal.SIGTERM)
        assert not other.made
    finally:
        signal.signal(signal.SIGTERM, theirs)
