"""The pipeline of stages; the only module that determines their order.

    rows, checkpoint -> tokens -> fp32 -> statistics -> ranges -> (qat) -> scores -> onnx -> parity, latency
                                   -> (control) -> scores, instead of the three behind fp32
    with a refinement:            fp32 -> (equalized) -> (moments) -> statistics -> ranges -> (refined)
    with method.start=pretrained: tokens -> pretrained -> qat

Each stage adds its results to :class:`RunResults`, so that a failed run keeps the results before its failure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qexp.artifacts.types import ModelArtifact, Moments, Ranges, Scores, Statistics, Tokens
from qexp.config import Control, Experiment, Finetune, MultiLabelTask, Qat
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.sources.resolve import SourceRows
from qexp.naming import MODEL_TITLES
from qexp.pipeline.deployment import Deployment, PipelineModel
from qexp.pipeline.inputs import completed
from qexp.pipeline.results import RunResults
from qexp.pipeline.stages import (
    calibrate,
    control,
    equalize,
    evaluate,
    finetune,
    moments,
    observe,
    pretrained,
    qat,
    refine,
    tokenize,
)

BATCH_RANGES = (
    "scheme.activation.dynamic=tensor: activations have the range of a batch, so that what a row gives "
    "depends a little on the rows and the padding beside it"
)
"""Sentence on runs whose ranges are found at run time, one for each tensor."""


def run_pipeline(
    experiment: Experiment,
    ctx: RunContext,
    results: RunResults,
    rows: SourceRows,
    checkpoint: Checkpoint | ScratchModel,
) -> None:
    """Run all stages of an experiment, and add their results to ``results``, even if a later stage raises.

    Raises:
        QexpError: A stage failed; see :mod:`qexp.errors` for the subclasses.
    """
    experiment = completed(experiment, rows, checkpoint)
    task = experiment.task.without_decoding
    tokens = ctx.run_stage(tokenize.STAGE, rows=rows, checkpoint=checkpoint, task=task)
    results.note("tokens", tokens)
    skipped = results.note_skipped(tokens, experiment.data.max_skipped)
    for sentence in (*skipped, *results.note_cut(tokens, task)):
        ctx.console.warn(sentence)
    Pipeline(experiment, ctx, results, tokens).run(checkpoint)


@dataclass(frozen=True)
class Pipeline:
    """Stages of one experiment that follow tokenization."""

    experiment: Experiment
    ctx: RunContext
    results: RunResults
    tokens: Tokens

    def run(self, checkpoint: Checkpoint | ScratchModel) -> None:
        """Fine-tune, quantize, train and evaluate the model, and deploy the final one."""
        method = self.experiment.method
        final = fp32 = self.evaluate("fp32", self.finetune(checkpoint))
        task = self.experiment.task
        shared = fp32.scores if isinstance(task, MultiLabelTask) and task.search.fit == "fp32" else None
        if isinstance(method, Control):
            final = self.compare("control", self.train_control(fp32, method), fp32, shared)
        if self.experiment.quant.enabled:
            final = self.compare("ptq", self.calibrate(fp32.encoder), fp32, shared)
            if isinstance(method, Qat):
                start = final if method.start == "finetuned" else self.pretrained(checkpoint, final)
                trained = self.train_quantized(start, fp32.encoder, method)
                final = self.compare("qat", trained, fp32, shared)
        if self.experiment.deploy.kind != "none":
            Deployment(
                fp32,
                final,
                tokens=self.tokens,
                experiment=self.experiment,
                ctx=self.ctx,
                results=self.results,
            ).run()

    def compare(
        self, name: str, model: PipelineModel, fp32: PipelineModel, decoding: Scores | None
    ) -> PipelineModel:
        """Evaluate a model as :meth:`evaluate` does, and record how far its scores are from FP32's."""
        found = self.evaluate(name, model, decoding)
        self.results.note_shift(name, found.scores, fp32.scores, self.experiment.task)
        return found

    def finetune(self, checkpoint: Checkpoint | ScratchModel) -> PipelineModel:
        """Train the FP32 model, or load a fine-tuned checkpoint."""
        e = self.experiment
        setup = e.training_setup.unquantized if isinstance(e.finetune, Finetune) else None
        fp32 = self.ctx.run_stage(
            finetune.STAGE,
            tokens=self.tokens,
            checkpoint=checkpoint,
            task=e.task.without_decoding,
            finetune=e.finetune,
            training_setup=setup,
        )
        self.results.note("fp32", fp32)
        return PipelineModel(fp32)

    def calibrate(self, fp32: ModelArtifact) -> PipelineModel:
        """Apply post-training quantization: choose all ranges, and refine the weights if requested."""
        e, refinement = self.experiment, self.experiment.refinement
        encoder = self.ctx.run_stage(equalize.STAGE, encoder=fp32) if refinement.equalize else fp32
        moments = self._moments(encoder) if refinement.reads_moments else None
        migration_moments = None if refinement.migration is None else moments
        statistics = None if e.quant_config.observes_nothing else self._observe(encoder, migration_moments)
        ranges = self.ctx.run_stage(
            calibrate.STAGE,
            encoder=encoder,
            statistics=statistics,
            quant_config=e.quant_config,
            calibrator=e.calibrator,
            migration=refinement.migration,
            moments=migration_moments,
        )
        self.results.note("ptq", ranges)
        if e.quant_config.depends_on_batch:
            self.ctx.console.warn(BATCH_RANGES)
        if statistics is not None:
            self.results.note_ranges("ptq", e.quant_config, statistics, ranges)
            for sentence in self.results.coarse_ranges(e.calibrator.kind, statistics, ranges):
                self.ctx.console.warn(sentence)
        if refinement.changes_weights:
            assert moments is not None
            encoder = self._refine(encoder, ranges, moments)
        return PipelineModel(encoder, e.quant_config, ranges, statistics)

    def _observe(self, encoder: ModelArtifact, moments: Moments | None) -> Statistics:
        e = self.experiment
        quantized = e.calibration.weights == "quantized" and e.quant.quantizes_weights
        return self.ctx.run_stage(
            observe.STAGE,
            encoder=encoder,
            tokens=self.tokens,
            task=e.task.without_decoding,
            placement=e.placement,
            quant_config=e.quant_config if quantized else None,
            calibrator=e.calibrator if quantized else None,
            calibration=e.calibration,
            calibration_rows=e.budget.calibration_rows,
            seed=e.seed,
            dimensions=e.quant_config.groups_dimensions,
            migration=e.refinement.migration,
            moments=moments,
            numerics=e.numerics.inference,
        )

    def _moments(self, encoder: ModelArtifact) -> Moments:
        e = self.experiment
        return self.ctx.run_stage(
            moments.STAGE,
            encoder=encoder,
            tokens=self.tokens,
            task=e.task.without_decoding,
            calibration=e.calibration,
            calibration_rows=e.budget.calibration_rows,
            seed=e.seed,
            gram=e.refinement.rounds_by_moments,
            numerics=e.numerics.inference,
        )

    def _refine(self, encoder: ModelArtifact, ranges: Ranges, moments: Moments) -> ModelArtifact:
        e, refinement = self.experiment, self.experiment.refinement
        adaround, gptq = refinement.rounding == "adaround", refinement.rounding == "gptq"
        return self.ctx.run_stage(
            refine.STAGE,
            encoder=encoder,
            ranges=ranges,
            moments=moments,
            quant_config=e.quant_config,
            rounding=refinement.rounding,
            iterations=refinement.iterations if adaround else None,
            damping=refinement.damping if gptq else None,
            activation_order=refinement.activation_order if gptq else None,
            bias_correction=refinement.bias_correction,
            numerics=e.numerics.inference,
        )

    def train_control(self, fp32: PipelineModel, method: Control) -> PipelineModel:
        """Train like quantization-aware training, but without quantizers."""
        e = self.experiment
        trained = self.ctx.run_stage(
            control.STAGE,
            encoder=fp32.encoder,
            tokens=self.tokens,
            task=e.task.without_decoding,
            method=method,
            finetune=e.finetune,
            training_setup=e.training_setup,
        )
        self.results.note("control", trained)
        return PipelineModel(trained)

    def pretrained(self, checkpoint: Checkpoint | ScratchModel, ptq: PipelineModel) -> PipelineModel:
        """Calibrate the pretrained model under a new head."""
        e = self.experiment
        assert isinstance(checkpoint, Checkpoint)  # Experiment rejects a model from scratch here
        start = self.ctx.run_stage(
            pretrained.STAGE,
            tokens=self.tokens,
            checkpoint=checkpoint,
            task=e.task.without_decoding,
            quant_config=e.quant_config,
            calibrator=e.calibrator,
            calibration=e.calibration,
            calibration_rows=e.budget.calibration_rows,
            seed=e.seed,
            numerics=e.numerics.inference,
        )
        return replace(ptq, encoder=start, ranges=start)

    def train_quantized(self, ptq: PipelineModel, fp32: ModelArtifact, method: Qat) -> PipelineModel:
        """Apply quantization-aware training to the calibrated model."""
        e = self.experiment
        assert ptq.ranges is not None
        moves = method.ranges == "ema"
        trained = self.ctx.run_stage(
            qat.STAGE,
            encoder=ptq.encoder,
            teacher=fp32,
            ranges=ptq.ranges,
            tokens=self.tokens,
            task=e.task.without_decoding,
            quant_config=e.quant_config,
            method=method,
            recalibrator=e.calibrator if method.recalibrate_weights else None,
            counts_padding=moves and e.calibration.padding != "masked",
            finetune=e.finetune,
            training_setup=e.training_setup,
        )
        self.results.note("qat", trained)
        if ptq.seen is not None:
            self.results.note_ranges("qat", e.quant_config, ptq.seen, trained)
        return PipelineModel(trained, e.quant_config, trained, ptq.seen)

    def evaluate(self, name: str, model: PipelineModel, decoding: Scores | None = None) -> PipelineModel:
        """Evaluate a model, and return it with its scores; ``decoding`` as in :mod:`.stages.evaluate`."""
        e = self.experiment
        scores = self.ctx.on(MODEL_TITLES[name]).run_stage(
            evaluate.STAGE,
            encoder=model.encoder,
            quant_config=model.quant_config,
            ranges=model.ranges,
            tokens=self.tokens,
            task=e.task,
            evaluation_rows=e.budget.evaluation_rows,
            numerics=e.numerics.inference,
            decoding=decoding,
        )
        self.results.note(name, scores)
        for caveat in self.results.note_caveats(name, scores, e.task):
            self.ctx.console.warn(f"{name} {caveat}")
        if name in self.results.scores:
            self.ctx.listener.scored(name, self.results.scores[name])
        return replace(model, scores=scores)
