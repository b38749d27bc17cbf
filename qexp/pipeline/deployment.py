"""The end of the line: graphs, engines of them in every runtime, the gate of each, and all on the clock.

    model -> onnx -> (half) -> noise floor -> parity of each engine -> latency of all that passed or not

An engine that cannot be had, for want of a package or a device, is noted, and the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qexp.artifacts.types import Encoder, Graph, NoiseFloor, Parity, Ranges, Scores, Statistics, Tokens
from qexp.config import Engines, Experiment, Form, Onnx, Precision, RuntimeName
from qexp.context import Runtime
from qexp.deploy.hardware import this_host
from qexp.errors import DeployError
from qexp.pipeline.results import Outcome
from qexp.pipeline.stages import benchmark, convert_fp16, export, noise_floor, parity

HALVED: frozenset[RuntimeName] = frozenset({"onnxruntime"})
"""Runtimes that want FP16 in the file; the others halve what they are given."""


@dataclass(frozen=True)
class Quantized:
    """A model as it is evaluated and exported: float, or with a form and ranges."""

    encoder: Encoder
    form: Form | None = None
    ranges: Ranges | None = None
    seen: Statistics | None = None
    """What its ranges were chosen from."""
    scores: Scores | None = None
    """What torch scored with it."""


@dataclass
class Deployment:
    """Models of one run on their way to engines."""

    fp32: Quantized
    final: Quantized
    """The run's result, which may be the same."""
    tokens: Tokens
    experiment: Experiment
    rt: Runtime
    outcome: Outcome
    graphs: dict[str, Graph] = field(default_factory=dict)
    """Exported so far, by precision."""

    def run(self) -> None:
        """Export, build, gate and measure what the experiment asks for.

        Raises:
            DeployError: the model cannot be exported, nothing is asked of it, or not one engine could be had.
        """
        deploy = self.experiment.deploy
        assert isinstance(deploy, Engines | Onnx)
        engines = deploy if isinstance(deploy, Engines) else Engines(kind="engines", runtimes=deploy.runtimes)
        self._export()
        asked = [each for each in engines.asked if each[1] != "int8" or self.final.form]
        if not asked:
            raise DeployError(
                f"deploy.precisions={list(engines.precisions)}: a float model has no int8; ask for fp32 too"
            )
        if isinstance(deploy, Onnx):
            asked = [_own([each for each in asked if each[0] == runtime]) for runtime in deploy.runtimes]
        gated = self._gate_all(asked)
        if isinstance(deploy, Engines):
            self._measure(gated, deploy)

    def _export(self) -> None:
        plain = self.fp32 if self.final.form else self.final
        self.graphs["fp32"] = self._exported(plain)
        self.outcome.note("fp32", self.graphs["fp32"])
        if self.final.form:
            self.graphs["int8"] = self._exported(self.final)
            self.outcome.note("int8", self.graphs["int8"])

    def _exported(self, model: Quantized) -> Graph:
        task = self.experiment.task.taught
        return self.rt.walk(
            export.STAGE, model.encoder, model.form, model.ranges, self.tokens, task, rt=self.rt
        )

    def _gate_all(self, asked: list[tuple[RuntimeName, Precision]]) -> dict[str, Graph]:
        """Graphs of the engines that could be had, by their names; the run's own is gated first."""
        own = _own(asked)
        found: dict[str, Graph] = {}
        first: DeployError | None = None
        for runtime, precision in sorted(asked, key=lambda each: each != own):
            name = f"{runtime}/{precision}"
            try:
                graph = graph_for(runtime, precision, self.graphs, self.rt)
                checked = self._gate(graph, runtime, precision)
            except DeployError as error:
                first = first or error
                self.outcome.note_problem(name, str(error))
                self.rt.screen.warn(f"{name}: {error}")
                continue
            found[name] = graph
            self.outcome.note_gate(name, checked)
            if (runtime, precision) == own:
                self.outcome.note("onnx", checked)
            self._tell(name)
        if not found and first is not None:
            raise first
        return {f"{runtime}/{precision}": found[name] for runtime, precision in asked
                if (name := f"{runtime}/{precision}") in found}  # fmt: skip

    def _gate(self, graph: Graph, runtime: RuntimeName, precision: Precision) -> Parity:
        model = self.final if precision == "int8" or not self.final.form else self.fp32
        host = this_host(self.rt.threads, (runtime,))
        assert model.scores is not None
        return self.rt.walk(
            parity.STAGE, graph, model.scores, self._floor(model, precision), self.tokens,
            self.experiment.task, self.experiment.gate_rows, runtime, precision, host, rt=self.rt,
        )  # fmt: skip

    def _floor(self, model: Quantized, precision: Precision) -> NoiseFloor:
        """The model's own noise; engines that compute in float32 and in integers share it."""
        arithmetic: Precision = precision if precision in ("fp16", "bf16") else "fp32"
        return self.rt.walk(
            noise_floor.STAGE, model.encoder, model.form, model.ranges, self.tokens, self.experiment.task,
            self.experiment.gate_rows, arithmetic, self.experiment.numerics.inference, rt=self.rt,
        )  # fmt: skip

    def _tell(self, name: str) -> None:
        gate = self.outcome.engines.get(name, {}).get("gate")
        if gate and not gate["passed"]:
            self.rt.screen.warn(
                f"gate: {name} is not the model that torch evaluated: {'; '.join(gate['reasons'])}"
            )

    def _measure(self, gated: dict[str, Graph], deploy: Engines) -> None:
        if self.rt.share is not None:
            self.rt.screen.warn(
                "latency: measured while other jobs of the sweep used this machine; time it alone"
            )
        timed = self.rt.walk(
            benchmark.STAGE, tuple(gated), tuple(gated.values()), self.tokens, self.experiment.task, deploy,
            self.experiment.budget.benchmark_runs, self.experiment.budget.benchmark_rows,
            this_host(self.rt.threads, deploy.runtimes), rt=self.rt,
        )  # fmt: skip
        self.outcome.note("latency", timed)
        self.outcome.note_own(deploy)


def _own(asked: list[tuple[RuntimeName, Precision]]) -> tuple[RuntimeName, Precision]:
    """The engine whose gate is the run's: of its result, not of its start, in the first runtime."""
    order: list[Precision] = ["int8", "fp32", "bf16", "fp16"]
    return min((each for each in asked if each[0] == asked[0][0]), key=lambda each: order.index(each[1]))


def graph_for(runtime: RuntimeName, precision: Precision, graphs: dict[str, Graph], rt: Runtime) -> Graph:
    """The file that an engine is made of.

    Args:
        runtime: What executes it.
        precision: In which arithmetic.
        graphs: Exported graphs, ``fp32`` and ``int8``; one in half precision is added where it is made.
        rt: What makes it.
    """
    source = "int8" if precision == "int8" else "fp32"
    if precision != "fp16" or runtime not in HALVED:
        return graphs[source]
    if (name := f"{source} half") not in graphs:
        graphs[name] = rt.walk(convert_fp16.STAGE, graphs[source], rt=rt)
    return graphs[name]
