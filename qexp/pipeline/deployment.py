"""Last part of the pipeline: exports graphs, builds engines in every runtime, gates and times them.

    model -> onnx -> (half) -> noise floor -> parity of each engine -> latency of all engines, passed or not

An engine that is not available, for lack of a package or a device, is recorded, and the others continue.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qexp.artifacts.run_model import RunModel
from qexp.artifacts.types import Graph, NoiseFloor, Parity, Scores, Statistics, Tokens
from qexp.config import RUNTIMES, DeployEngines, Experiment, Onnx, Precision, RuntimeName, TranslationTask
from qexp.context import RunContext
from qexp.deploy.hardware import this_host
from qexp.errors import DeployError
from qexp.pipeline.results import RunResults
from qexp.pipeline.stages import benchmark, convert_fp16, export, noise_floor, parity


@dataclass(frozen=True)
class PipelineModel(RunModel):
    """Model that the pipeline has at a time."""

    seen: Statistics | None = None
    """Statistics that its ranges were chosen from."""
    scores: Scores | None = None
    """Its scores in torch."""


@dataclass
class Deployment:
    """Deployment of the models of one run."""

    fp32: PipelineModel
    final: PipelineModel
    """Final model of the run, which may be ``fp32``."""
    tokens: Tokens
    experiment: Experiment
    ctx: RunContext
    results: RunResults
    graphs: dict[str, Graph] = field(default_factory=dict)
    """Graphs that were exported so far, by precision."""
    problem: str = ""
    """Why there is no FP32 graph beside that of integers."""

    def run(self) -> None:
        """Export, build, gate and time the engines that the experiment requests.

        Raises:
            DeployError: The model cannot be exported, no engine applies to it, or no engine is available.
        """
        deploy = self.experiment.deploy
        assert isinstance(deploy, DeployEngines | Onnx)
        engines = (
            deploy
            if isinstance(deploy, DeployEngines)
            else DeployEngines(kind="engines", runtimes=deploy.runtimes)
        )
        self._export()
        asked = [each for each in engines.asked if each[1] != "int8" or self.final.quant_config]
        if isinstance(deploy, Onnx):
            asked = [_own([each for each in asked if each[0] == runtime]) for runtime in deploy.runtimes]
        gated = self._gate_all(asked)
        if isinstance(deploy, DeployEngines):
            self._measure(gated, deploy)

    def _export(self) -> None:
        plain = self.fp32 if self.final.quant_config else self.final
        try:
            self.graphs["fp32"] = self._exported(plain)
        except DeployError as error:
            if not self.final.quant_config:
                raise
            self.problem = str(error)  # such as an FP32 graph above 2 GB: that of integers may be smaller
        else:
            self.results.note("fp32", self.graphs["fp32"])
        if self.final.quant_config:
            self.graphs["int8"] = self._exported(self.final)
            self.results.note("int8", self.graphs["int8"])

    def _exported(self, model: PipelineModel) -> Graph:
        task = self.experiment.task.without_decoding
        return self.ctx.on("INT8" if model.quant_config else "FP32").run_stage(
            export.STAGE,
            encoder=model.encoder,
            quant_config=model.quant_config,
            ranges=model.ranges,
            tokens=self.tokens,
            task=task,
            cache_bits=self._cache_bits(model),
        )

    def _cache_bits(self, model: PipelineModel) -> int | None:
        """Return the bits of a translation's cache, which has integers with quantizers alone."""
        if not isinstance(self.experiment.task, TranslationTask):
            return None
        deploy = self.experiment.deploy
        assert isinstance(deploy, DeployEngines | Onnx)
        return (deploy.cache_bits or 32) if model.quant_config else 32

    def _gate_all(self, asked: list[tuple[RuntimeName, Precision]]) -> dict[str, Graph]:
        """Gate all engines, the run's own first, and return the graphs of those available, by name."""
        own = _own(asked)
        found: dict[str, Graph] = {}
        first: DeployError | None = None
        for runtime, precision in sorted(asked, key=lambda each: each != own):
            name = f"{runtime}/{precision}"
            try:
                if self.problem and precision != "int8":
                    raise DeployError(self.problem)
                graph = graph_for_engine(runtime, precision, self.graphs, self.ctx)
                checked = self._gate(graph, runtime, precision)
            except DeployError as error:
                first = first or error
                self.results.note_problem(name, str(error))
                self.ctx.console.warn(f"{name}: {error}")
                continue
            found[name] = graph
            self.results.note_gate(name, checked)
            self.results.note_shift(name, checked, self.fp32.scores, self.experiment.task)
            if (runtime, precision) == own:
                self.results.note("onnx", checked)
            self._tell(name)
        if not found and first is not None:
            raise first
        return {
            f"{runtime}/{precision}": found[name]
            for runtime, precision in asked
            if (name := f"{runtime}/{precision}") in found
        }

    def _gate(self, graph: Graph, runtime: RuntimeName, precision: Precision) -> Parity:
        model = self.final if precision == "int8" or not self.final.quant_config else self.fp32
        host = this_host(self.ctx.threads, (runtime,))
        assert model.scores is not None
        return self.ctx.on(f"{runtime}/{precision}").run_stage(
            parity.STAGE,
            graph=graph,
            scores=model.scores,
            floor=self._floor(model, precision),
            tokens=self.tokens,
            task=self.experiment.task,
            rows=self.experiment.gate_rows,
            runtime=runtime,
            precision=precision,
            host=host,
        )

    def _floor(self, model: PipelineModel, precision: Precision) -> NoiseFloor:
        """Return the noise floor of a model, which float32 and integer engines share."""
        arithmetic: Precision = precision if precision in ("fp16", "bf16") else "fp32"
        part = (
            f"{'INT8' if model.quant_config else 'FP32'}{'' if arithmetic == 'fp32' else f', {arithmetic}'}"
        )
        return self.ctx.on(part).run_stage(
            noise_floor.STAGE,
            encoder=model.encoder,
            quant_config=model.quant_config,
            ranges=model.ranges,
            tokens=self.tokens,
            task=self.experiment.task,
            rows=self.experiment.floor_rows,
            precision=arithmetic,
            numerics=self.experiment.numerics.inference,
            decoding=model.scores if self.experiment.task.chooses_decoding else None,
        )

    def _tell(self, name: str) -> None:
        gate = self.results.engines.get(name, {}).get("gate")
        if gate and not gate["passed"]:
            self.ctx.console.warn(
                f"gate: {name} is not the model that torch evaluated: {'; '.join(gate['reasons'])}"
            )

    def _measure(self, gated: dict[str, Graph], deploy: DeployEngines) -> None:
        if self.ctx.share is not None:
            self.ctx.console.warn(
                "latency: measured while other jobs of the sweep used this machine; time it alone"
            )
        timed = self.ctx.run_stage(
            benchmark.STAGE,
            names=tuple(gated),
            graphs=tuple(gated.values()),
            tokens=self.tokens,
            task=self.experiment.task,
            deploy=deploy,
            benchmark_runs=self.experiment.budget.benchmark_runs,
            benchmark_rows=self.experiment.budget.benchmark_rows,
            host=this_host(self.ctx.threads, deploy.runtimes),
        )
        self.results.note("latency", timed)
        self.results.note_own(deploy)


def _own(asked: list[tuple[RuntimeName, Precision]]) -> tuple[RuntimeName, Precision]:
    """Return the engine whose gate counts for the run: the final model in the first runtime."""
    order: list[Precision] = ["int8", "fp32", "bf16", "fp16"]
    return min((each for each in asked if each[0] == asked[0][0]), key=lambda each: order.index(each[1]))


def graph_for_engine(
    runtime: RuntimeName, precision: Precision, graphs: dict[str, Graph], ctx: RunContext
) -> Graph:
    """Return the graph that an engine is built from.

    Args:
        runtime: Runtime of the engine.
        precision: Precision of the engine.
        graphs: Exported graphs, ``fp32`` and ``int8``; a converted FP16 graph is added to them.
        ctx: Context of the process.
    """
    source = "int8" if precision == "int8" else "fp32"
    if precision != "fp16" or not RUNTIMES[runtime].fp16_in_file:
        return graphs[source]
    if (name := f"{source} half") not in graphs:
        graphs[name] = ctx.run_stage(convert_fp16.STAGE, graph=graphs[source])
    return graphs[name]
