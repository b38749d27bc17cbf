"""Results of a run so far: the fields of a Record that stages fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts import digest
from qexp.artifacts.types import (
    Artifact,
    Graph,
    Latency,
    ModelArtifact,
    Parity,
    QatArtifact,
    Ranges,
    Scores,
    Statistics,
    Tokens,
)
from qexp.config import DeployEngines, Experiment, QuantizationConfig, Task, score_name
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.metrics.baselines import caveats
from qexp.data.skipped import notes_on_skipped, skipped_in
from qexp.data.sources.resolve import SourceRows
from qexp.data.sources.row_checks import cut_rows
from qexp.pipeline.activation_ranges import activation_ranges, coarse_ranges
from qexp.pipeline.outlier_dimensions import outlier_dimensions
from qexp.pipeline.score_shifts import score_shifts
from qexp.records.schema import with_metrics


@dataclass
class RunResults:
    """Results of a run, filled stage by stage, so that a failed run keeps the results before its failure."""

    data: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    scoring: dict[str, Any] = field(default_factory=dict)
    caveats: dict[str, dict[str, str]] = field(default_factory=dict)
    shifts: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, Any] = field(default_factory=dict)
    outliers: dict[str, Any] | None = None
    parity: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    bytes: dict[str, int] | None = None
    sites: dict[str, Any] | None = None
    host: dict[str, Any] | None = None
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def key(self, experiment: Experiment) -> str:
        """Return the key of the run: a hash of the experiment, its rows and its checkpoint."""
        data = self.data and {name: self.data[name] for name in ("source", "fingerprint")}
        return digest({"experiment": experiment.identity, "data": data, "model": self.model})

    def start(self, rows: SourceRows, checkpoint: Checkpoint | ScratchModel) -> None:
        """Record the rows and the checkpoint that the run starts from."""
        counts = {name: table.num_rows for name, table in rows.splits.items()}
        self.data = {"source": rows.source, "fingerprint": rows.fingerprint, "rows": counts}
        if rows.statements:
            self.data["reading"] = list(rows.statements)
        if rows.checks:
            self.data["checks"] = [check.sentence for check in rows.checks]
        self.model = {"name": checkpoint.name, "fingerprint": checkpoint.fingerprint}

    def note(self, name: str, artifact: Artifact) -> None:
        """Record the results of an artifact; ``name`` is its part of the run, such as ``fp32``."""
        for take in _RECORDERS[type(artifact)]:
            take(self, name, artifact)

    def note_skipped(self, tokens: Tokens, most: float) -> list[str]:
        """Return sentences on rows that tokenization skipped; ``most`` is the share that may be.

        Raises:
            DataError: A larger share of a split was skipped.
        """
        splits = tokens.facts["rows"].items()
        return [
            sentence
            for split, count in splits
            for sentence in notes_on_skipped(skipped_in(tokens.split(split)), count, split, most)
        ]

    def note_cut(self, tokens: Tokens, task: Task) -> list[str]:
        """Record how many rows of each split were cut, and return the sentences of those that are many."""
        assert self.data is not None
        if "checks" not in self.data:  # generated rows
            return []
        checks = [
            cut_rows(f"{split}{side}", facts[name], tokens.facts["rows"][split], task.max_length)
            for split, facts in tokens.facts["preparation"].items()
            for name, side in CUT_SIDES.items()
            if name in facts
        ]
        self.data["checks"] += [check.sentence for check in checks]
        return [check.sentence for check in checks if check.is_warning]

    def note_ranges(
        self, name: str, quant_config: QuantizationConfig, statistics: Statistics, ranges: Ranges
    ) -> None:
        """Record the ranges of activations, and the extremes that calibration observed."""
        self.ranges[name] = activation_ranges(quant_config, statistics, ranges)
        self.outliers = outlier_dimensions(quant_config, statistics, ranges)

    def coarse_ranges(self, calibrator: str, statistics: Statistics, ranges: Ranges) -> list[str]:
        """Return a sentence on ranges that the histograms of calibration cannot tell."""
        return coarse_ranges(calibrator, statistics, ranges)

    def note_caveats(self, name: str, scores: Scores, task: Task) -> list[str]:
        """Record why scores of a stage are meaningless, and return the distinct reasons with their scores."""
        reasons: dict[str, str] = {}
        for split in task.evaluation:
            of_split = {
                str(metric): scores.metrics.get(score_name(metric, split, task)) for metric in task.metrics
            }
            file = pq.ParquetFile(scores.predictions(split))  # pq.read_table would import pandas
            table = file.read(columns=["prediction", "label"])
            predictions, labels = table["prediction"].to_pylist(), table["label"].to_pylist()
            on = f" of {split}" if len(task.evaluation) > 1 else ""
            for metric, why in caveats(predictions, labels, task, of_split).items():
                reasons[score_name(metric, split, task)] = f"{why}{on}"
        if reasons:
            self.caveats[name] = reasons
        return with_metrics(
            {f"{name} {_percent(scores.metrics[name])}": why for name, why in reasons.items()}
        )

    def note_shift(self, name: str, scores: Scores | None, reference: Scores | None, task: Task) -> None:
        """Record how far the scores of a reranker are from those of the FP32 model."""
        if scores and reference and (shifts := score_shifts(scores, reference, task)):
            self.shifts[name] = shifts

    def note_gate(self, name: str, parity: Parity) -> None:
        """Record the result of the gate for an engine."""
        engine = self.engines.setdefault(name, {})
        engine |= {"info": parity.facts["engine"], "gate": parity.facts["parity"], "scores": parity.metrics}

    def note_own(self, deploy: DeployEngines) -> None:
        """Record timings of the first runtime at the first length, or number of beams, as the run's.

        They are kept by graph and batch size.
        """
        for precision in ("fp32", "int8"):
            timings = self.engines.get(f"{deploy.runtimes[0]}/{precision}", {}).get("latency", {})
            own = {str(rows): timings.get(deploy.shape_of(rows)) for rows in deploy.batch_sizes}
            if measured := {rows: times for rows, times in own.items() if times}:
                self.latency = {**(self.latency or {}), precision: measured}

    def note_problem(self, name: str, problem: str) -> None:
        """Record why an engine is not available."""
        self.engines[name] = {"problems": {"engine": problem}}


def _percent(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.2f}"


class NullResults(RunResults):
    """Results of a dry run, which reads no artifacts."""

    def note(self, name: str, artifact: Artifact) -> None:
        """Ignore the artifact."""

    def note_skipped(self, tokens: Tokens, most: float) -> list[str]:
        """Ignore the artifact, and return no sentences."""
        return []

    def note_cut(self, tokens: Tokens, task: Task) -> list[str]:
        """Ignore the artifact, and return no sentences."""
        return []

    def note_ranges(
        self, name: str, quant_config: QuantizationConfig, statistics: Statistics, ranges: Ranges
    ) -> None:
        """Ignore the artifacts."""

    def coarse_ranges(self, calibrator: str, statistics: Statistics, ranges: Ranges) -> list[str]:
        """Ignore the artifacts, and return no sentences."""
        return []

    def note_caveats(self, name: str, scores: Scores, task: Task) -> list[str]:
        """Ignore the artifact, and return no caveats."""
        return []

    def note_shift(self, name: str, scores: Scores | None, reference: Scores | None, task: Task) -> None:
        """Ignore the artifacts."""

    def note_gate(self, name: str, parity: Parity) -> None:
        """Ignore the artifact."""

    def note_own(self, deploy: DeployEngines) -> None:
        """Do nothing."""


def _tokens(results: RunResults, name: str, tokens: Any) -> None:
    assert results.data is not None
    results.data["preparation"] = tokens.facts["preparation"]


def _curve(results: RunResults, name: str, encoder: Any) -> None:
    if losses := encoder.facts.get("loss"):
        results.curves[name] = thinned(losses)


def _selection(results: RunResults, name: str, encoder: Any) -> None:
    if found := encoder.facts.get("selection"):
        results.selection[name] = dict(found)


def _sites(results: RunResults, name: str, ranges: Any) -> None:
    results.sites = dict(ranges.facts)


def _scores(results: RunResults, name: str, scores: Any) -> None:
    results.scores[name] = scores.metrics
    if scores.notes:
        results.scoring[name] = scores.notes


def _size(results: RunResults, name: str, graph: Any) -> None:
    results.bytes = {**(results.bytes or {}), name: graph.bytes}


def _parity(results: RunResults, name: str, parity: Any) -> None:
    results.scores[name], results.parity = parity.metrics, parity.facts["parity"]


def _latency(results: RunResults, name: str, latency: Any) -> None:
    facts = latency.facts
    results.host = facts["host"]
    for engine, info in facts["engines"].items():
        entry = results.engines.setdefault(engine, {})
        entry |= {"info": info, "latency": facts["latency"].get(engine, {})}
        entry |= {"audit": facts["audits"][engine]} if facts["audits"][engine] else {}
        entry |= {"problems": facts["problems"][engine]} if engine in facts["problems"] else {}
        if session := facts.get("sessions", {}).get(engine):  # older artifacts have none
            entry["session"] = session


_RECORDERS: Mapping[type[Artifact], tuple[Callable[[RunResults, str, Any], None], ...]] = {
    Tokens: (_tokens,),
    ModelArtifact: (_curve, _selection),
    QatArtifact: (_curve,),
    Ranges: (_sites,),
    Scores: (_scores,),
    Graph: (_size,),
    Parity: (_parity,),
    Latency: (_latency,),
}
"""Functions that record the results of each type of artifact."""

CUT_SIDES = {"truncated": "", "truncated_source": ", sources", "truncated_target": ", targets"}
"""Counts of rows that were cut, and what their sentences say of the texts."""
MOST_POINTS = 400
"""Most points of a curve in a Record."""


def thinned(losses: list[float]) -> dict[str, list[Any]]:
    """Downsample losses to at most ``MOST_POINTS`` means over intervals, each at its last step."""
    stride = -(-len(losses) // MOST_POINTS)
    ends = [min(start + stride, len(losses)) for start in range(0, len(losses), stride)]
    means = [sum(losses[start:end]) / (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    return {"step": ends, "loss": means}
