"""Choice of rows and steps by which a run ends within ``budget.minutes``.

Rates are measured once on a machine, with a few training steps and evaluation batches, and kept in
``outputs/probes``. So the same command makes the same choice again, and finds its artifacts. The choice is in
round numbers and does not depend on what is cached.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from qexp.artifacts import digest
from qexp.artifacts.disk import write_whole
from qexp.config import Budget, Experiment, TranslationTask
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.sources.resolve import SourceRows
from qexp.errors import ConfigError
from qexp.execution.dry_run import RequiredStage, required_stages
from qexp.execution.stage_times import Rates, StageRule, tokens_of_row
from qexp.pipeline.stages import tokenize
from qexp.progress.durations import duration
from qexp.records.record import outputs_root

FIXED_SECONDS = 15.0
"""Seconds for the start, imports, and the end of a run."""
LEAST_STEPS, LEAST_ROWS, LEAST_CALIBRATION_ROWS = 4, 50, 32
BENCHMARK_RUNS = 20
"""Timed runs of a benchmark, where not everything fits."""
EVALUATION_SHARE, CALIBRATION_SHARE = 3.0, 4.0
"""How much larger the shares of rows are than that of the steps: scores of few rows tell little."""
HALVINGS = 20


@dataclass(frozen=True)
class TimedChoice:
    """Rows and steps for a number of minutes."""

    experiment: Experiment
    seconds: float
    """Expected seconds of the whole run."""
    left_out: tuple[str, ...]
    """What a run without the limit would do besides."""

    def describe(self, minutes: float) -> str:
        """Return a sentence for the console and the Record."""
        expected = f"budget.minutes={minutes:g}: about {duration(self.seconds)} on this machine"
        if not self.left_out:
            return f"{expected}, with all rows and steps"
        least = ", the least there is" if self.seconds > 60 * minutes else ""
        return f"{expected}{least}; left out: {', '.join(self.left_out)}"


def within_minutes(
    experiment: Experiment,
    rows: SourceRows,
    checkpoint: Checkpoint | ScratchModel,
    ctx: RunContext,
    *,
    measure: bool = True,
) -> TimedChoice | None:
    """Return the choice for ``budget.minutes``; None if it is not set, or if rates would have to be measured.

    Args:
        experiment: Experiment of the run.
        rows: Rows of the run.
        checkpoint: Weights that it starts from.
        ctx: Context of the run, or of its plan.
        measure: Whether rates that no earlier probe knows are measured.

    Raises:
        ConfigError: The task is a translation, whose search takes a time that no probe tells.
    """
    minutes = experiment.budget.minutes
    if minutes is None:
        return None
    if isinstance(experiment.task, TranslationTask) or not isinstance(checkpoint, Checkpoint):
        raise ConfigError(
            f"budget.minutes={minutes:g} with task={experiment.task.name}: the time of a translation depends "
            "on the texts that a model finds; set budget.train_steps and budget.evaluation_rows instead"
        )
    counts = {name: table.num_rows for name, table in rows.splits.items()}
    rates = _rates(experiment, rows, checkpoint, ctx, measure=measure)
    if rates is None:
        return None
    tokens = tokens_of_row(rows.splits[experiment.task.train], experiment.task.max_length)
    rule = StageRule(experiment, counts, rates, row_tokens=tokens)
    stages = required_stages(experiment, ctx, rows, checkpoint)
    return choose(rule, stages, 60 * minutes)


def choose(rule: StageRule, stages: Sequence[RequiredStage], seconds: float) -> TimedChoice:
    """Return the largest choice whose stages take at most so many seconds, or the least there is."""
    low, high = 0.0, 1.0
    if _seconds(_limited(rule, high), stages) > seconds:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = _seconds(_limited(rule, middle), stages) <= seconds
            low, high = (middle, high) if fits else (low, middle)
    else:
        low = 1.0
    chosen = _limited(rule, low)
    return TimedChoice(chosen.experiment, _seconds(chosen, stages), _left_out(rule, chosen))


def _seconds(rule: StageRule, stages: Sequence[RequiredStage]) -> float:
    return FIXED_SECONDS + sum(rule.seconds(stage.stage, stage.part) or 0.0 for stage in stages)


def _limited(rule: StageRule, share: float) -> StageRule:
    """Return the rule of an experiment with a share of the steps, and larger shares of the rows."""
    if share >= 1:
        return rule
    experiment, task = rule.experiment, rule.experiment.task
    steps = max(rule.finetuning[0], rule.continued[0])
    evaluated = max(rule.rows[split] for split in task.evaluation.values())
    evaluated = min(evaluated, experiment.budget.evaluation_rows or evaluated)
    limits = {
        "train_steps": _part(steps, share, LEAST_STEPS),
        "evaluation_rows": _part(evaluated, EVALUATION_SHARE * share, LEAST_ROWS),
        "calibration_rows": _part(rule.calibrated, CALIBRATION_SHARE * share, LEAST_CALIBRATION_ROWS),
        "benchmark_runs": min(experiment.budget.benchmark_runs or BENCHMARK_RUNS, BENCHMARK_RUNS),
    }
    budget = Budget(**{**experiment.budget.model_dump(), **limits})
    return replace(rule, experiment=experiment.model_copy(update={"budget": budget}))


def _part(count: int, share: float, least: int) -> int:
    """Return a share of a count, down to two digits, but at least ``least`` and at most all."""
    part = int(count * min(1.0, share))
    if part < count:
        unit = 10 ** max(0, len(str(part)) - 2)
        part = part // unit * unit
    return max(1, min(count, max(part, least)))


def _left_out(rule: StageRule, chosen: StageRule) -> tuple[str, ...]:
    pairs = {
        "steps of fine-tuning": (rule.finetuning[0], chosen.finetuning[0]),
        f"steps of {rule.experiment.method.kind}": (rule.continued[0], chosen.continued[0]),
        "rows of evaluation": (rule.evaluated, chosen.evaluated),
        "rows of calibration": (rule.calibrated, chosen.calibrated),
    }
    return tuple(f"{whole - part} of {whole} {what}" for what, (whole, part) in pairs.items() if part < whole)


def _rates(
    experiment: Experiment, rows: SourceRows, checkpoint: Checkpoint, ctx: RunContext, *, measure: bool
) -> Rates | None:
    """Return the rates of an earlier probe with the same rows and model on this machine, or measure them."""
    task = experiment.task.without_decoding
    of = {
        "task": task.model_dump(mode="json"),
        "rows": rows.fingerprint,
        "checkpoint": checkpoint.fingerprint,
        "batch": _batch(experiment),
        "numerics": experiment.numerics.model_dump(mode="json"),
        "threads": ctx.threads,
        "machine": platform.node(),
    }
    file = outputs_root() / "probes" / f"{digest(of)}.json"
    if (known := _read(file)) is not None or not measure:
        return known
    from qexp.training.probe import measure_rates

    apart = replace(ctx, visits=[])  # the run itself visits the stage later
    tokens = apart.run_stage(tokenize.STAGE, rows=rows, checkpoint=checkpoint, task=task)
    ctx.console.info("  measuring a few steps, for budget.minutes")
    rates = Rates(*measure_rates(experiment, tokens, checkpoint, ctx))
    write_whole(file, json.dumps({**asdict(rates), "of": of}, indent=1).encode())
    return rates


def _batch(experiment: Experiment) -> int | str:
    tokens = experiment.finetune.batch_tokens
    return experiment.finetune.batch_size if tokens is None else f"{tokens} tokens"


def _read(file: Path) -> Rates | None:
    """Return the rates of a file; None if it is missing or damaged, and is then measured anew."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        return Rates(float(tree["train_row"]), float(tree["evaluation_row"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
