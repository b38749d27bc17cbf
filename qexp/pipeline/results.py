"""What a run has found so far: the fields of a Record that stages fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts import digest
from qexp.artifacts.types import (  # fmt: skip
    Artifact,
    Encoder,
    Graph,
    Latency,
    Parity,
    Ranges,
    Scores,
    Statistics,
    Tokens,
    Trained,
)
from qexp.config import Engines, Experiment, Form, Task, score_name
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.data.metrics.baselines import caveats
from qexp.data.sources.resolve import Rows
from qexp.pipeline.activation_ranges import activation_ranges
from qexp.records.schema import with_metrics


@dataclass
class Outcome:
    """Filled as a run walks down the line, so that one that fails half-way still shows what it had."""

    data: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    scoring: dict[str, Any] = field(default_factory=dict)
    caveats: dict[str, dict[str, str]] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    bytes: dict[str, int] | None = None
    sites: dict[str, Any] | None = None
    host: dict[str, Any] | None = None
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def key(self, experiment: Experiment) -> str:
        """The run's key: the experiment, and the content of its rows and of its checkpoint."""
        data = self.data and {name: self.data[name] for name in ("source", "fingerprint")}
        return digest({"experiment": experiment.identity, "data": data, "model": self.model})

    def start(self, rows: Rows, checkpoint: Checkpoint | Blueprint) -> None:
        """Note what the run begins with."""
        counts = {name: table.num_rows for name, table in rows.splits.items()}
        self.data = {"source": rows.source, "fingerprint": rows.fingerprint, "rows": counts}
        self.model = {"name": checkpoint.name, "fingerprint": checkpoint.fingerprint}

    def note(self, name: str, artifact: Artifact) -> None:
        """Note what an artifact tells; ``name`` is the part of the run that it is of, such as ``fp32``."""
        for take in _TAKE[type(artifact)]:
            take(self, name, artifact)

    def note_ranges(self, name: str, form: Form, statistics: Statistics, ranges: Ranges) -> None:
        """Note the ranges of activations beside what calibration saw."""
        self.ranges[name] = activation_ranges(form, statistics, ranges)

    def note_caveats(self, name: str, scores: Scores, task: Task) -> list[str]:
        """Note why scores of a stage say nothing of its model; the different reasons, with the scores."""
        found: dict[str, str] = {}
        for split in task.evaluation:
            of_split = {
                str(metric): scores.metrics.get(score_name(metric, split, task)) for metric in task.metrics
            }
            file = pq.ParquetFile(scores.predictions(split))  # pq.read_table would import pandas
            table = file.read(columns=["prediction", "label"])
            predictions, labels = table["prediction"].to_pylist(), table["label"].to_pylist()
            on = f" of {split}" if len(task.evaluation) > 1 else ""
            for metric, why in caveats(predictions, labels, task, of_split).items():
                found[score_name(metric, split, task)] = f"{why}{on}"
        if found:
            self.caveats[name] = found
        return with_metrics({f"{name} {_percent(scores.metrics[name])}": why for name, why in found.items()})

    def note_gate(self, name: str, parity: Parity) -> None:
        """Note what the gate found of an engine; the first one's is the run's."""
        found = self.engines.setdefault(name, {})
        found |= {"info": parity.facts["engine"], "gate": parity.facts["parity"], "scores": parity.metrics}

    def note_own(self, deploy: Engines) -> None:
        """Note the times of the first runtime at the first length as the run's: by graph and batch size."""
        length = deploy.lengths[0]
        for precision in ("fp32", "int8"):
            timed = self.engines.get(f"{deploy.runtimes[0]}/{precision}", {}).get("latency", {})
            own = {str(rows): timed.get(f"{rows}x{length}") for rows in deploy.batch_sizes}
            if found := {rows: times for rows, times in own.items() if times}:
                self.latency = {**(self.latency or {}), precision: found}

    def note_problem(self, name: str, problem: str) -> None:
        """Note why there is no such engine."""
        self.engines[name] = {"problems": {"engine": problem}}


def _percent(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.2f}"


class Nothing(Outcome):
    """Of a line that is walked only to see what it would do: no artifact needs to be there."""

    def note(self, name: str, artifact: Artifact) -> None:
        """Leave the artifact alone."""

    def note_ranges(self, name: str, form: Form, statistics: Statistics, ranges: Ranges) -> None:
        """Leave the artifacts alone."""

    def note_caveats(self, name: str, scores: Scores, task: Task) -> list[str]:
        """Leave the artifact alone."""
        return []

    def note_gate(self, name: str, parity: Parity) -> None:
        """Leave the artifact alone."""

    def note_own(self, deploy: Engines) -> None:
        """Leave it alone."""


def _tokens(outcome: Outcome, name: str, tokens: Any) -> None:
    assert outcome.data is not None
    outcome.data["preparation"] = tokens.facts["preparation"]


def _curve(outcome: Outcome, name: str, encoder: Any) -> None:
    if losses := encoder.facts.get("loss"):
        outcome.curves[name] = thinned(losses)


def _sites(outcome: Outcome, name: str, ranges: Any) -> None:
    outcome.sites = dict(ranges.facts)


def _scores(outcome: Outcome, name: str, scores: Any) -> None:
    outcome.scores[name] = scores.metrics
    if scores.notes:
        outcome.scoring[name] = scores.notes


def _size(outcome: Outcome, name: str, graph: Any) -> None:
    outcome.bytes = {**(outcome.bytes or {}), name: graph.bytes}


def _parity(outcome: Outcome, name: str, parity: Any) -> None:
    outcome.scores[name], outcome.parity = parity.metrics, parity.facts["parity"]


def _latency(outcome: Outcome, name: str, latency: Any) -> None:
    facts = latency.facts
    outcome.host = facts["host"]
    for engine, info in facts["engines"].items():
        found = outcome.engines.setdefault(engine, {})
        found |= {"info": info, "latency": facts["latency"].get(engine, {})}
        found |= {"audit": facts["audits"][engine]} if facts["audits"][engine] else {}
        found |= {"problems": facts["problems"][engine]} if engine in facts["problems"] else {}


_TAKE: Mapping[type[Artifact], tuple[Callable[[Outcome, str, Any], None], ...]] = {
    Tokens: (_tokens,),
    Encoder: (_curve,),
    Trained: (_curve,),
    Ranges: (_sites,),
    Scores: (_scores,),
    Graph: (_size,),
    Parity: (_parity,),
    Latency: (_latency,),
}
"""What is noted of each kind of artifact."""

MOST_POINTS = 400
"""Points of a curve in a Record."""


def thinned(losses: list[float]) -> dict[str, list[Any]]:
    """At most ``MOST_POINTS`` points: each the mean of as many steps as that takes, at the last of them."""
    stride = -(-len(losses) // MOST_POINTS)
    ends = [min(start + stride, len(losses)) for start in range(0, len(losses), stride)]
    means = [sum(losses[start:end]) / (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    return {"step": ends, "loss": means}
