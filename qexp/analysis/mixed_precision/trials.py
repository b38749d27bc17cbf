"""Evaluation of a run's float model under many assignments of bit-widths, without calibrating again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from qexp.analysis.evaluator import Accelerator, EvaluationRows, Measurement, rows_of
from qexp.analysis.find_run import experiment_of, folder_of, subject_of
from qexp.analysis.mixed_precision.groups import QuantizerGroup, groups_of
from qexp.analysis.mixed_precision.overrides import quant_of, schemes_of
from qexp.analysis.mixed_precision.path import Assignment, BitWidthPair, Costs
from qexp.analysis.run_models import runtime_of
from qexp.artifacts.types import ModelArtifact
from qexp.config import FLOAT_BITS, AnyCalibrator, Override, Quant, QuantizationConfig, Refinement
from qexp.context import RunContext, device_of, set_threads
from qexp.errors import QuantizationError
from qexp.models.loading import load_saved
from qexp.naming import StageName
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.cost import ForwardCost, work_of
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.insertion.sites import Site
from qexp.records.record import Record
from qexp.tasks import adapter_for

FLOAT = BitWidthPair(FLOAT_BITS, FLOAT_BITS)
Range = Mapping[str, Tensor]
"""Tensors that ``QuantizedModel.ranges`` returns for one quantizer, by the last part of their names."""


@dataclass
class CandidateEvaluator:
    """Evaluator of assignments: model, observer statistics, and cached ranges for each prepared bit-width."""

    title: str
    """Short description of the run."""
    model: PreTrainedModel
    quant_config: QuantizationConfig
    statistics: CalibrationStatistics
    calibrator: AnyCalibrator
    rows: EvaluationRows
    ctx: RunContext
    sites: tuple[Site, ...] = ()
    groups: tuple[QuantizerGroup, ...] = ()
    work: ForwardCost = field(init=False)
    _ranges: dict[int, Mapping[str, Range]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self._calibrated(self._uniform(BitWidthPair(8, 8))) as quantization:
            self.sites, self.work = quantization.sites, work_of(quantization)
        self.groups = groups_of(self.sites, self.work)

    @cached_property
    def weights(self) -> frozenset[str]:
        """Names of weight quantizers."""
        return frozenset(site.quantizer for site in self.sites if site.is_weight)

    def prepare(self, pairs: Sequence[BitWidthPair]) -> None:
        """Compute the ranges of all quantizers at the bit-widths of these pairs; it needs no forward pass."""
        weights, activations = ({*bits} - {FLOAT_BITS} for bits in zip(*pairs, strict=True))
        for bits in sorted(weights | activations):
            pair = BitWidthPair(
                *(bits if bits in widths else FLOAT_BITS for widths in (weights, activations))
            )
            with self._calibrated(self._uniform(pair)) as quantization:
                self._ranges[bits] = _by_quantizer(quantization.ranges(), quantization.quantizers)

    def quant(self, assignment: Assignment) -> Quant:
        """Return the assignment as a quant section, with the run's own overrides of grid schemes."""
        return quant_of(self.groups, assignment, self.sites, self._kept)

    def measure(
        self, assignment: Assignment, advance: Callable[..., None], rows: EvaluationRows | None = None
    ) -> Measurement:
        """Evaluate an assignment on ``rows``, or on all rows of the run if None."""
        with self._quantized(assignment) as model:
            return (rows or self.rows).measure(adapter_for(self.rows.task).runner(model, self.ctx), advance)

    @contextmanager
    def _quantized(self, assignment: Assignment) -> Iterator[PreTrainedModel]:
        requested = Costs(self.work, self.groups, self.weights, "bops").bits(assignment)
        quantization = insert(self.model, self._quant_config(self.quant(assignment)))
        try:
            bits = quantization.bits
            assert bits == {name: width for name, width in requested.items() if width != FLOAT_BITS}
            ranges = {name: self._ranges[width][name] for name, width in bits.items()}
            quantization.load_ranges(
                {f"{name}/{part}": tensor for name, parts in ranges.items() for part, tensor in parts.items()}
            )
            quantization.freeze()
            yield self.model.to(device_of(self.ctx.machine))
        finally:
            quantization.remove()

    @contextmanager
    def _calibrated(self, quant: Quant) -> Iterator[QuantizedModel]:
        """Calibrate on the CPU inside the context, as the stage of a run does."""
        quantization = insert(self.model.cpu(), self._quant_config(quant))
        try:
            quantization.calibrate(self.statistics, self.calibrator)
            yield quantization
        finally:
            quantization.remove()

    def _quant_config(self, quant: Quant) -> QuantizationConfig:
        return self.quant_config.model_copy(update={"quant": quant})

    def _uniform(self, pair: BitWidthPair) -> Quant:
        return Quant(weight_bits=pair.weight, activation_bits=pair.activation, overrides=self._kept)

    @cached_property
    def _kept(self) -> dict[str, Override]:
        return schemes_of(self.quant_config.quant)


def candidates_of(record: Record, outputs: Path, accelerator: Accelerator | None) -> CandidateEvaluator:
    """Return an evaluator of a run's FP32 model, with its statistics, placement, scheme and calibrator.

    Raises:
        QuantizationError: If the run quantized nothing, or refined the model.
        StoreError: If an artifact is missing or damaged, or another version wrote the Record.
        ConfigError: If this machine has no such accelerator.
    """
    subject, experiment = subject_of(record, outputs, "ptq"), experiment_of(record)
    if experiment.refinement != Refinement():
        raise QuantizationError(
            f"run {record.key[:12]} has refinement={experiment.refinement.name}, which depends on the bits: "
            "search a run with refinement=none"
        )
    ctx = runtime_of(record, outputs, accelerator)
    set_threads(ctx.threads)
    device_of(ctx.machine)
    statistics = CalibrationStatistics()
    if not subject.quant_config.observes_nothing:
        statistics = CalibrationStatistics.load(
            folder_of(record, StageName.STATISTICS, outputs) / "statistics.safetensors"
        )
    model = load_saved(ModelArtifact(folder_of(record, StageName.FP32, outputs), "").model)
    return CandidateEvaluator(
        subject.title,
        model,
        quant_config=subject.quant_config,
        statistics=statistics,
        calibrator=experiment.calibrator,
        rows=rows_of(record, outputs, subject.stage),
        ctx=ctx,
    )


def _by_quantizer(ranges: Mapping[str, Tensor], names: Iterable[str]) -> Mapping[str, Range]:
    """Split ranges by quantizer, whose names contain no slash."""
    by_quantizer: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, tensor in ranges.items():
        name, _, part = key.partition("/")
        by_quantizer[name][part] = tensor
    return by_quantizer
