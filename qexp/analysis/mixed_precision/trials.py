"""A run's float model, quantized with one assignment of bits after another, without calibrating again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from qexp.analysis.evaluator import Accelerator, Measurement, Rows, rows_of, runtime_of
from qexp.analysis.find_run import experiment_of, folder_of, subject_of
from qexp.analysis.mixed_precision.groups import Group, groups_of
from qexp.analysis.mixed_precision.overrides import quant_of, schemes_of
from qexp.analysis.mixed_precision.path import Assignment, Costs, Pair
from qexp.artifacts.types import Encoder
from qexp.config import FLOAT_BITS, AnyCalibrator, Form, Override, Quant, Refinement
from qexp.context import Runtime, device_of, set_threads
from qexp.errors import QuantizationError
from qexp.models.loading import load_saved
from qexp.quant.calibration.statistics import Statistics
from qexp.quant.cost import Work, work_of
from qexp.quant.insertion.insert import Quantization, insert
from qexp.quant.insertion.sites import Site
from qexp.records.record import Record
from qexp.tasks import family_of

FLOAT = Pair(FLOAT_BITS, FLOAT_BITS)
Range = Mapping[str, Tensor]
"""What ``Quantization.ranges`` has of one quantizer, by the part of its name behind the quantizer's."""


@dataclass
class Trials:
    """The model, what calibration saw of it, and the ranges at every width that was asked for."""

    title: str
    """The run in a few words."""
    model: PreTrainedModel
    form: Form
    statistics: Statistics
    calibrator: AnyCalibrator
    rows: Rows
    rt: Runtime
    sites: tuple[Site, ...] = ()
    groups: tuple[Group, ...] = ()
    work: Work = field(init=False)
    _ranges: dict[int, Mapping[str, Range]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self._calibrated(self._uniform(Pair(8, 8))) as quantization:
            self.sites, self.work = quantization.sites, work_of(quantization)
        self.groups = groups_of(self.sites, self.work)

    @cached_property
    def weights(self) -> frozenset[str]:
        """Quantizers of weights."""
        return frozenset(site.quantizer for site in self.sites if site.is_weight)

    def prepare(self, pairs: Sequence[Pair]) -> None:
        """Choose the ranges of every quantizer at the widths of these pairs; no forward pass is needed."""
        weights, activations = ({*bits} - {FLOAT_BITS} for bits in zip(*pairs, strict=True))
        for bits in sorted(weights | activations):
            pair = Pair(*(bits if bits in wanted else FLOAT_BITS for wanted in (weights, activations)))
            with self._calibrated(self._uniform(pair)) as quantization:
                self._ranges[bits] = _by_quantizer(quantization.ranges(), quantization.quantizers)

    def quant(self, assignment: Assignment) -> Quant:
        """The assignment as a section; what the run's overrides say of grids stays."""
        return quant_of(self.groups, assignment, self.sites, self._kept)

    def measure(
        self, assignment: Assignment, move: Callable[..., None], rows: Rows | None = None
    ) -> Measurement:
        """Evaluate with an assignment, on all rows of the run unless others are given."""
        with self._quantized(assignment) as model:
            return (rows or self.rows).measure(family_of(self.rows.task).runner(model, self.rt), move)

    @contextmanager
    def _quantized(self, assignment: Assignment) -> Iterator[PreTrainedModel]:
        wanted = Costs(self.work, self.groups, self.weights, "bops").bits(assignment)
        quantization = insert(self.model, self._form(self.quant(assignment)))
        try:
            bits = quantization.bits
            assert bits == {name: width for name, width in wanted.items() if width != FLOAT_BITS}
            ranges = {name: self._ranges[width][name] for name, width in bits.items()}
            quantization.load_ranges(
                {f"{name}/{part}": tensor for name, parts in ranges.items() for part, tensor in parts.items()}
            )
            quantization.freeze()
            yield self.model.to(device_of(self.rt.machine))
        finally:
            quantization.remove()

    @contextmanager
    def _calibrated(self, quant: Quant) -> Iterator[Quantization]:
        """On the CPU, as the stage of a run does it."""
        quantization = insert(self.model.cpu(), self._form(quant))
        try:
            quantization.calibrate(self.statistics, self.calibrator)
            yield quantization
        finally:
            quantization.remove()

    def _form(self, quant: Quant) -> Form:
        return self.form.model_copy(update={"quant": quant})

    def _uniform(self, pair: Pair) -> Quant:
        return Quant(weight_bits=pair.weight, activation_bits=pair.activation, overrides=self._kept)

    @cached_property
    def _kept(self) -> dict[str, Override]:
        return schemes_of(self.form.quant)


def trials_of(record: Record, outputs: Path, accelerator: Accelerator | None) -> Trials:
    """Of a run's fine-tuned model, with its statistics, placement, scheme and calibrator.

    Raises:
        QuantizationError: the run quantized nothing, or refined the model on the way.
        StoreError: an artifact is gone or damaged, or the Record is of another version.
        ConfigError: there is no such accelerator here.
    """
    subject, experiment = subject_of(record, outputs, "ptq"), experiment_of(record)
    if experiment.refinement != Refinement():
        raise QuantizationError(
            f"run {record.key[:12]} has refinement={experiment.refinement.name}, which depends on the bits: "
            "search a run with refinement=none"
        )
    rt = runtime_of(record, outputs, accelerator)
    set_threads(rt.threads)
    device_of(rt.machine)
    seen = Statistics.load(folder_of(record, "3-statistics", outputs) / "statistics.safetensors")
    model = load_saved(Encoder(folder_of(record, "2-fp32", outputs), "").model)
    return Trials(
        subject.title, model, subject.form, seen, experiment.calibrator, rows_of(record, outputs), rt
    )


def _by_quantizer(ranges: Mapping[str, Tensor], names: Iterable[str]) -> Mapping[str, Range]:
    """No name of a quantizer holds a slash."""
    found: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, tensor in ranges.items():
        name, _, part = key.partition("/")
        found[name][part] = tensor
    return found
