"""Quantized models of a comparison's rows as candidates for deployment, each with what decides about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from qexp.naming import MODEL_TITLES, Execution, StageName
from qexp.reporting.comparison import Row
from qexp.reporting.costs import session_numbers
from qexp.reporting.run_view import FLOAT_BITS, RunView
from qexp.reporting.verdict.speed import Drifts, Speed, engines_of, execution_of, speed_of

State = Literal[
    "deployable", "simulated", "not exported", "gate failed", "no engine", "loss", "collapsed", "undefined"
]
WithinLoss = Literal["deployable", "simulated", "not exported"]
STATES: tuple[State, ...] = (
    "deployable", "simulated", "not exported", "gate failed", "no engine", "loss", "collapsed", "undefined",
)  # fmt: skip
"""From the best to the worst. In the first five the score is within the accepted loss."""
WITHIN_LOSS: tuple[WithinLoss, ...] = ("deployable", "simulated", "not exported")
"""States within the accepted loss that nothing speaks against."""
DEFAULT_LOSS = 0.5
"""Accepted loss of Records without one (:class:`qexp.config.Accept`; a test compares the two)."""


@dataclass(frozen=True)
class ScoreChange:
    """Main score of a quantized model beside that of the run's FP32 model."""

    metric: str
    fp32: float
    score: float
    points: float
    """Score minus FP32: the median over the seeds."""
    low: float | None = None
    """Lower end of the interval: over the evaluation rows of one seed, or the smallest of several seeds."""
    high: float | None = None
    rows: int = 0
    """Evaluation rows of the interval; 0 if the ends are those of several seeds."""
    resamples: int = 0
    seeds: int = 1
    others: tuple[tuple[str, float], ...] = ()
    """Points of the other metrics."""


@dataclass(frozen=True)
class DeploymentCandidate:
    """One quantized model in one runtime; without a runtime if it has no exported graph."""

    row: Row
    run: RunView
    """Run of the seed whose score is the median."""
    stage: str
    """``ptq`` or ``qat``."""
    runtime: str | None
    state: State
    reason: str
    """Why it is not deployable; empty if it is."""
    accepted: float
    """Points that the user accepts to lose."""
    change: ScoreChange | None
    """None if a score is undefined."""
    speed: Speed
    details: str = ""
    """Settings that tell it from others of the same bit-widths and method, such as ``calibrator max``."""
    gate: str = ""
    """``passed``, ``within noise`` or ``failed``; empty without a gate."""

    @property
    def name(self) -> str:
        """Precision, method and details, such as ``W8A8 PTQ (calibrator max)``."""
        details = f" ({self.details})" if self.details else ""
        return f"{self.row.quant.upper()} {MODEL_TITLES[self.stage]}{details}"

    @property
    def exported_score(self) -> float | None:
        """Main score of the exported file in the candidate's runtime; None where none was measured."""
        if self.change is None or self.runtime is None:
            return None
        own: Mapping[str, float | None] = (
            engines_of(self.run).get(f"{self.runtime}/int8", {}).get("scores", {})
        )
        first = self.runtime == self.run.find("deploy.runtimes", ["onnxruntime"])[0]
        return (own or (self.run.record.scores.get("onnx", {}) if first else {})).get(self.change.metric)

    @property
    def sure(self) -> bool:
        """Whether the whole interval is within the accepted loss."""
        return bool(self.change and self.change.low is not None and self.change.low >= -self.accepted)

    @property
    def execution(self) -> Execution:
        """How its runtime (without one, the run's first) computes its bit-widths."""
        return execution_of(self.run, self.runtime or self.run.find("deploy.runtimes", ["onnxruntime"])[0])

    @property
    def bytes(self) -> tuple[int, int] | None:
        """Sizes of the FP32 and the quantized file, or None without both."""
        sizes = self.run.record.bytes or {}
        return (sizes["fp32"], sizes["int8"]) if {"fp32", "int8"} <= set(sizes) else None

    @property
    def memory(self) -> tuple[float, float] | None:
        """Bytes that the FP32 and the quantized engine of its runtime take; None without both."""
        engines = engines_of(self.run)
        found = [session_numbers(engines.get(f"{self.runtime}/{graph}", {})) for graph in ("fp32", "int8")]
        fp32, int8 = (each.get("memory") for each in found)
        return (fp32, int8) if fp32 and int8 else None

    @property
    def packed_bytes(self) -> int | None:
        """Bytes of all parameters at their own bit-widths, whatever the file holds; None in old Records."""
        sites = self.run.record.sites
        return sites["cost"]["bytes"] if sites and "cost" in sites else None

    @property
    def size(self) -> float:
        """Bytes to compare: of the file of a deployable model, else of its parameters at their own bits."""
        file = self.bytes[1] if self.bytes else None
        first, second = (file, self.packed_bytes) if self.state == "deployable" else (self.packed_bytes, file)
        return next((float(each) for each in (first, second) if each), float("inf"))

    @property
    def quantized_sites(self) -> set[str]:
        """Kinds of sites that the run quantized, such as ``linear.weight``."""
        sites = self.run.record.sites
        return set(sites["sites"]) if sites else set()

    @property
    def float_bytes(self) -> float:
        """Bytes of the parameters that stay in FP32 where all linear weights are quantized; 0 elsewhere.

        They are almost all in tables of embeddings; the others are biases and norms. The size of the FP32
        file and that of all parameters at their own bits tell how many parameters are quantized.
        """
        find, quantized = self.run.find, self.quantized_sites
        chosen = any(find(f"placement.{name}") for name in ("include", "exclude", "typed"))
        alike = not chosen and not find("quant.overrides") and find("task.kind") != "translation"
        saved = FLOAT_BITS - self.run.bits[0]
        if self.bytes is None or self.packed_bytes is None or not alike or not saved:
            return 0.0
        if "linear.weight" not in quantized or "embedding.weight" in quantized:
            return 0.0
        fp32 = self.bytes[0]
        return max(0.0, fp32 - FLOAT_BITS * (fp32 - self.packed_bytes) / saved)

    @property
    def has_large_tables(self) -> bool:
        """Whether parameters in FP32 are more than a third of the quantized file."""
        return self.bytes is not None and 3 * self.float_bytes > self.bytes[1]

    @property
    def graph(self) -> str | None:
        """Folder of the exported graph below the outputs; None without one."""
        keys = [visit["key"] for visit in self.run.record.stages if visit["stage"] == StageName.ONNX]
        exported = self.bytes is not None and self.stage == self.run.stages[-1] and len(keys) == 2
        return f"artifacts/{StageName.ONNX}/{keys[-1]}" if exported else None


def accepted_loss(run: RunView) -> float:
    """Return the loss in points that the run's user accepts."""
    return float(run.find("accept.loss", DEFAULT_LOSS))


def candidates_of(
    row: Row, metric: str, *, accepted: float | None, drifts: Drifts
) -> list[DeploymentCandidate]:
    """Return the candidates of a row, which has none without quantization or without a successful run.

    Args:
        row: Row of a comparison.
        metric: Main score.
        accepted: Points that may be lost; None takes what the runs say.
        drifts: FP32 graphs whose latency differs between runs.
    """
    runs = [of_seed.best for of_seed in row.by_seed.values() if of_seed.best]
    if row.quant == "fp32" or not runs:
        return []
    found = []
    for stage in ("ptq", "qat"):
        with_stage = [run for run in runs if stage in run.record.scores]
        if with_stage:
            change, run = change_of(with_stage, stage, metric)
            base = {"row": row, "run": run, "stage": stage, "change": change}
            base["accepted"] = accepted_loss(run) if accepted is None else accepted
            base["caveat"] = _caveat(with_stage, stage)
            found += [_judged(base, runtime, drifts) for runtime in _runtimes(run, stage)]
    return found


def change_of(runs: Sequence[RunView], stage: str, metric: str) -> tuple[ScoreChange | None, RunView]:
    """Return the change of a score over the runs of all seeds, and the run of the (lower) median."""
    changes: list[tuple[float, RunView]] = []
    for run in runs:
        fp32, score = (run.record.scores.get(each, {}).get(metric) for each in ("fp32", stage))
        if fp32 is None or score is None:
            return None, run
        changes.append((score - fp32, run))
    changes.sort(key=lambda change: change[0])
    (low, _), (_, run), (high, _) = changes[0], changes[(len(changes) - 1) // 2], changes[-1]
    points = median(change for change, _ in changes)
    scores = run.record.scores
    facts: dict[str, Any] = {"fp32": scores["fp32"][metric], "score": scores[stage][metric], "points": points}
    if len(runs) > 1:
        facts |= {"low": low, "high": high, "seeds": len(runs)}
    elif interval := run.record.intervals.get(stage, {}).get(metric):
        facts |= interval
    return ScoreChange(metric, others=tuple(_others(run, stage, metric)), **facts), run


def _others(run: RunView, stage: str, metric: str) -> Iterator[tuple[str, float]]:
    for name, score in run.record.scores[stage].items():
        fp32 = run.record.scores["fp32"].get(name)
        if name != metric and score is not None and fp32 is not None:
            yield name, score - fp32


def _runtimes(run: RunView, stage: str) -> list[str | None]:
    """Return the runtimes of the exported stage; a stage that is not exported has none."""
    names = [name.split("/")[0] for name in engines_of(run) if name.endswith("/int8")]
    return [*names] if names and stage == run.stages[-1] else [None]


def _judged(base: Mapping[str, Any], runtime: str | None, drifts: Drifts) -> DeploymentCandidate:
    run: RunView = base["run"]
    name = f"{runtime}/int8"
    engine = engines_of(run).get(name, {})
    gate: Mapping[str, Any] | None = engine.get("gate")
    verdict = "" if gate is None else "failed" if not gate["passed"] else str(gate.get("verdict", "passed"))
    exported = run.stages[-1] == base["stage"]
    speed = (
        speed_of(run, name, drifts) if exported else Speed("missing", reason="PTQ of a run that exports QAT")
    )
    facts = {**base, "runtime": runtime, "speed": speed, "gate": verdict}
    del facts["caveat"]
    state, reason = _score_state(base) or _engine_state(facts, engine)
    return DeploymentCandidate(**facts, state=state, reason=reason)


def _score_state(base: Mapping[str, Any]) -> tuple[State, str] | None:
    """Return why the score alone rules a candidate out, or None if it does not."""
    change: ScoreChange | None = base["change"]
    if base["caveat"]:
        return "collapsed", base["caveat"]
    if change is None:
        return "undefined", "its score or that of FP32 is undefined"
    if round(change.points, 9) < -base["accepted"]:
        return "loss", f"it loses {-change.points:.2f} points"
    return None


def _caveat(runs: Sequence[RunView], stage: str) -> str:
    """Return why a score of a stage says nothing of the model, for any seed and metric; empty if all do."""
    reasons = (why for run in runs for why in run.record.caveats.get(stage, {}).values())
    return next(reasons, "")


def _engine_state(facts: Mapping[str, Any], engine: Mapping[str, Any]) -> tuple[State, str]:
    runtime, run = facts["runtime"], facts["run"]
    if runtime is None:
        return "not exported", facts["speed"].reason
    if facts["gate"] == "failed":
        return "gate failed", "; ".join(engine["gate"].get("reasons", [])) or "it is not the model of torch"
    if not facts["gate"]:
        problems = engine.get("problems", {})
        return "no engine", next(iter(problems.values()), "no gate was run")
    if execution_of(run, runtime) == "simulated":
        return "simulated", "no kernel multiplies these bit-widths"
    return "deployable", ""
