"""Does the gate tell a fault from rounding? Wrong graphs and sound engines of finished runs, by two rules.

    python -m benchmarks.gate RUN [RUN ...] [--rows N] [--floor-rows 512]
        [--threads 2] [--no-bisect] [--json FILE]

RUN is the beginning of the key of a quantized run of a BERT encoder with an exported graph. Every fault of
:mod:`benchmarks.faults` is done to its INT8 graph, which then runs in ONNX Runtime over the evaluation rows.
Sound engines of the FP32 and of the INT8 graph do the same: every runtime and precision that this machine
has, one thread and several, optimized and as written, in small batches and in large ones. Each is judged as a
run's engines are, and by the first rule of qexp 0.1: 99.5 % of predictions, and 0.2 points of the metric. For
graphs that fail, ``qexp bench --bisect`` is asked for the layer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.faults import FAULTS, Fault, Graph, fed, wrong
from benchmarks.harness import table
from qexp.analysis.evaluator import EvaluationRows, rows_of
from qexp.analysis.find_run import find_record, stages_of, subject_of
from qexp.analysis.run_models import runtime_of
from qexp.artifacts.types import ModelArtifact, Ranges
from qexp.config import FLOOR_ROWS, Precision, QuantizationConfig
from qexp.context import RunContext, set_threads
from qexp.data.batches import EVALUATION_BATCH
from qexp.deploy.engine import Engine, EngineSpec
from qexp.deploy.onnx.fp16 import to_fp16
from qexp.deploy.onnx.io import read
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.onnxruntime.engine import as_written
from qexp.errors import DeployError
from qexp.models.inference import load_quantized
from qexp.models.reordered import reordered
from qexp.records.record import Record, outputs_root
from qexp.tasks import adapter_for
from qexp.tasks.base import Predictions
from qexp.tasks.comparison import GateComparison, first_rows, splits_of
from qexp.tasks.gate import MAX_METRIC_DIFFERENCE, MIN_AGREEMENT, ROUNDING, judge

EFFECT = 0.1
"""Points of a metric from which a fault must be caught, if sound engines do not move it as far."""


@dataclass(frozen=True)
class Judged:
    """One engine under both rules."""

    task: str
    name: str
    wrong: bool
    effect: float
    """Points of the metric, up or down."""
    agreement: float
    largest: float | None
    """Difference of a logit, and below, that of the noise floor."""
    floor: float | None
    verdict: str
    first_rule: str
    reasons: str
    named: str = ""


@dataclass(frozen=True)
class Model:
    """A model of a run: its graph, its predictions in torch, and its noise floor."""

    graph: Path
    torch: Predictions
    floor: dict[Precision, Predictions]


class Bench:
    """A run's models on its rows."""

    def __init__(
        self, record: Record, outputs: Path, *, limit: int | None, floor_rows: int, threads: int
    ) -> None:
        self.record, self.outputs, self.threads = record, outputs, threads
        self.floor_rows = floor_rows
        self.ctx: RunContext = runtime_of(record, outputs, "cpu", threads)
        subject = subject_of(record, outputs, None)
        rows: EvaluationRows = rows_of(record, outputs, subject.stage).first(limit)
        first, split = next(iter(rows.task.evaluation.items()))
        self.rows = replace(rows, task=rows.task.model_copy(update={"evaluation": {first: split}}))
        self.adapter = adapter_for(self.rows.task)
        fp32, int8 = (self._folder("7-onnx", nth) / "model.onnx" for nth in (0, 1))
        weights, ranges = stages_of(record, subject.stage)
        self.quantized = self._model(int8, weights, subject.quant_config, ranges, ("fp32",))
        self.float = self._model(fp32, "2-fp32", None, None, ("fp32", "fp16", "bf16"))

    def judged(self, name: str, engine: Engine, model: Model, precision: Precision = "fp32", *,
               fault: Fault | None = None, batch: int = EVALUATION_BATCH) -> Judged:  # fmt: skip
        """Run an engine over the rows, and judge it."""

        def forward(values: dict[str, Tensor]) -> Tensor:
            feed = {each: values[each].numpy() for each in engine.inputs}
            feed = fed(fault, feed) if fault else feed
            return torch.from_numpy(engine.run(feed))

        found = self.predict(forward, batch)
        sides = splits_of(self.rows.task, [found], [model.torch], [model.floor[precision]])
        gate = judge(GateComparison(self.rows.task, sides, precision))
        apart = gate["metric_difference"]
        close = apart is not None and apart <= max(MAX_METRIC_DIFFERENCE, 100 / gate["rows"]) + ROUNDING
        first = "passed" if gate["max_logit_difference"] is not None and close and \
            gate["agreement"] >= MIN_AGREEMENT else "failed"  # fmt: skip
        return Judged(
            self.rows.task.name, name, fault is not None, float("inf") if apart is None else apart,
            gate["agreement"], gate["max_logit_difference"], gate["floor"]["logit_differences"]["max"],
            gate["verdict"], first, "; ".join(gate["reasons"]),
        )  # fmt: skip

    def predict(self, run: Callable[..., Any], batch: int = EVALUATION_BATCH) -> Predictions:
        """Predictions of the rows by a function of a padded batch."""
        rows = self.rows
        return self.adapter.predict(
            run, rows.tokens, rows.split, rows=rows.limit, advance=lambda *_, **__: None, batch_size=batch
        )

    def _model(
        self,
        graph: Path,
        weights: str,
        quant_config: QuantizationConfig | None,
        ranges: str | None,
        precisions: tuple[Precision, ...],
    ) -> Model:
        kept = None if ranges is None else Ranges(self._folder(ranges), "")
        model, _ = load_quantized(ModelArtifact(self._folder(weights), ""), quant_config, kept, self.ctx)
        run, floor = self.adapter.runner(model, self.ctx), {}
        for precision in precisions:
            with reordered(precision):
                floor[precision] = first_rows(self.predict(run), self.floor_rows)
        return Model(graph, self.predict(run), floor)

    def _folder(self, stage: str, nth: int = 0) -> Path:
        keys = [visit["key"] for visit in self.record.stages if visit["stage"] == stage]
        return self.outputs / "artifacts" / stage / keys[nth]


def sound_engines(bench: Bench, folder: Path) -> Iterator[Judged]:
    """Engines that compute what torch does."""
    several = sorted({1, bench.threads})
    for model, width in ((bench.float, "fp32"), (bench.quantized, "int8")):
        precision: Precision = "fp32" if width == "fp32" else "int8"
        made: list[tuple[str, Callable[[], Engine], Precision, int]] = []
        for threads in several:
            order = EngineSpec(model.graph, precision, threads)
            for runtime in ("onnxruntime", "openvino", "torch_int8"):
                made.append(
                    (
                        f"{runtime} {width}, {threads} threads",
                        _loader(runtime, order),
                        "fp32",
                        EVALUATION_BATCH,
                    )
                )
            made.append(
                (
                    f"onnxruntime {width} as written, {threads} threads",
                    _written(order),
                    "fp32",
                    EVALUATION_BATCH,
                )
            )
        order = EngineSpec(model.graph, precision, bench.threads)
        for runtime in ("onnxruntime", "openvino"):
            made.append((f"{runtime} {width}, 7 rows at once", _loader(runtime, order), "fp32", 7))
        if width == "fp32":
            half = folder / "half.onnx"
            to_fp16(model.graph, half)
            made.append(
                (
                    "onnxruntime fp16",
                    _loader("onnxruntime", EngineSpec(half, "fp16", bench.threads)),
                    "fp16",
                    64,
                )
            )
            made.append(
                (
                    "openvino bf16",
                    _loader("openvino", EngineSpec(model.graph, "bf16", bench.threads)),
                    "bf16",
                    64,
                )
            )
        for name, make, arithmetic, batch in made:
            try:
                yield bench.judged(name, make(), model, arithmetic, batch=batch)
            except DeployError as error:
                print(f"{name}: {error}", file=sys.stderr)


def _loader(runtime: str, order: EngineSpec) -> Callable[[], Engine]:
    return lambda: load(runtime, order)


def _written(order: EngineSpec) -> Callable[[], Engine]:
    return lambda: as_written(order)


def _departures(bench: Bench) -> Any:
    from qexp.analysis.bisect import DivergenceFinder

    return DivergenceFinder.of(bench.record, bench.outputs)


def wrong_engines(bench: Bench, folder: Path, *, bisect: bool) -> Iterator[Judged]:
    """Engines of graphs with a fault."""
    proto = read(bench.quantized.graph)
    departures = _departures(bench) if bisect else None
    middle = f"encoder.layer.{Graph(proto).layers // 2}"
    for fault in FAULTS:
        path = folder / "wrong.onnx"
        graph = wrong(fault, proto)
        path.write_bytes(graph.SerializeToString())
        engine = load("onnxruntime", EngineSpec(path, "int8", bench.threads))
        judged = bench.judged(fault.name, engine, bench.quantized, fault=fault)
        if departures is not None and fault.graph is not None and judged.verdict == "failed":
            layers = departures.layers(graph, "onnxruntime")
            first = layers[0].module if layers else "none"
            asked = [each.replace("@", middle) for each in fault.module.split("|")]
            right = any(first.endswith(each) for each in asked)
            judged = replace(judged, named=f"{first}{'' if right else ' (wrong)'}")
        yield judged


def lines(found: list[Judged]) -> list[list[str]]:
    """Of a table."""
    return [
        [
            each.task, each.name, f"{each.effect:.2f}", f"{each.agreement:.2f}",
            "not finite" if each.largest is None else f"{each.largest:.3g}",
            "not finite" if each.floor is None else f"{each.floor:.3g}",
            each.first_rule, each.verdict, each.named,
        ]
        for each in found
    ]  # fmt: skip


def noise_of(found: Iterable[Judged]) -> float:
    """Largest effect of a sound INT8 engine on the metric: what no rule can tell from a fault."""
    return max((each.effect for each in found if not each.wrong and "int8" in each.name), default=0.0)


def summary(found: list[Judged]) -> list[list[str]]:
    """Counts by rule: faults that are caught, below the noise, or missed, and sound engines that fail.

    A fault that is not caught is missed if it moves its task's metric by more than :data:`EFFECT`, and by
    more than sound INT8 engines of the same model do; else it is below the noise.
    """
    faults, sound = ([each for each in found if each.wrong is kind] for kind in (True, False))
    noise = {
        task: noise_of(each for each in found if each.task == task) for task in {each.task for each in found}
    }
    rows = []
    for rule, title in (("first_rule", "99.5 % and 0.2 points"), ("verdict", "noise floor")):
        passed = [each for each in faults if getattr(each, rule) != "failed"]
        missed = [each for each in passed if each.effect > max(EFFECT, noise[each.task])]
        alarms = [each for each in sound if getattr(each, rule) == "failed"]
        rows.append(
            [
                title,
                f"{len(faults) - len(passed)} of {len(faults)}",
                str(len(passed) - len(missed)),
                str(len(missed)),
                f"{len(alarms)} of {len(sound)}",
            ]
        )
    return rows


HEADS = ["task", "engine", "effect (points)", "agreement (%)", "largest difference", "of noise", "first rule",
         "verdict", "layer named"]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="beginning of a key")
    parser.add_argument("--rows", type=int, help="the first N rows of the evaluation split (default: all)")
    parser.add_argument("--floor-rows", type=int, default=FLOOR_ROWS, help="rows of the noise floor")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-bisect", action="store_true", help="do not ask for the layer")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    found: list[Judged] = []
    for key in options.runs:
        bench = Bench(
            find_record(key, outputs_root()), outputs_root(),
            limit=options.rows, floor_rows=options.floor_rows, threads=options.threads,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            sound = list(sound_engines(bench, Path(folder)))
            found += sound
            faulty = list(wrong_engines(bench, Path(folder), bisect=not options.no_bisect))
        title = f"{bench.rows.task.name}, {bench.rows.count} rows, run {bench.record.key[:8]}"
        table(f"Sound engines: {title}", HEADS[:-1], [line[:-1] for line in lines(sound)])
        table(f"Faults: {title}", HEADS, lines(faulty))
        found += faulty
        for each in sound:
            if each.verdict == "failed":
                print(f"\nfalse alarm: {each.name}: {each.reasons}")
    table(
        "Rules",
        ["rule", "faults caught", "below the noise", "missed", "false alarms"],
        summary(found),
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
