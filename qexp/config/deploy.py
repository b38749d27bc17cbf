"""Sections for deployment, the gate, the budget and the machine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from qexp.config.base import Section, is_none
from qexp.config.cpu import CpuChoice
from qexp.config.runtimes import RUNTIMES
from qexp.naming import Precision, RuntimeName

LARGEST_FILE = 2**31 - 1
"""Bytes of one protobuf message, and so of one ONNX file without external data."""


def _each_once(values: tuple[object, ...]) -> tuple[object, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"each value once; got {list(values)}")
    return values


# Fields of every deployment as types: a base class would move them to the front of what is dumped.
Runtimes = Annotated[tuple[RuntimeName, ...], Field(min_length=1), AfterValidator(_each_once)]
CacheBits = Annotated[
    Literal[8, 32] | None,
    Field(
        exclude_if=is_none,
        description="Bits of keys and values between the steps of a translation's search; null is 32. With "
        "8, those that have a quantizer (``matmul.key``, ``matmul.value``) are kept as its integers: no "
        "result changes.",
    ),
]
DeployCpu = Annotated[
    CpuChoice | None,
    Field(
        exclude_if=is_none,
        description="CPU that the quantized model is for: with VNNI, with AVX2 alone, whose pairs of 8-bit "
        "products saturate, or auto, the one that the run is composed on, which the Record names. With avx2, "
        "weights of 8 bits get 7, where :func:`qexp.config.cpu.resolve_cpu` says so; null changes nothing.",
    ),
]
BEAMS = (1, 5)
"""Numbers of beams with which a translation is timed where none are chosen."""


class NoDeploy(Section):
    """No export."""

    kind: Literal["none"]
    """Tag of the section."""


class Onnx(Section):
    """Export to ONNX with Q/DQ pairs, and the gate of the file in each runtime."""

    kind: Literal["onnx"]
    """Tag of the section."""
    runtimes: Runtimes = ("onnxruntime",)
    """What executes the run's result; the gate of the first is the run's."""
    cache_bits: CacheBits = None
    cpu: DeployCpu = None


class DeployEngines(Section):
    """Export, the gate of every engine, and a benchmark of all of them side by side."""

    kind: Literal["engines"]
    """Tag of the section."""
    runtimes: Runtimes = ("onnxruntime",)
    """What executes the graphs; scores, size and latency of the first stand in the tables of scores."""
    precisions: tuple[Precision, ...] = Field(default=("fp32", "int8"), min_length=1)
    """Arithmetic, in each runtime that has it; ``int8`` is the run's quantized model."""
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 32), min_length=1)
    """Rows in a timed batch."""
    lengths: tuple[Annotated[int, Field(ge=8)], ...] = Field(default=(128,), min_length=1)
    """Tokens in each row of a timed batch; a translation times rows of the evaluation split instead."""
    beams: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None, min_length=1, exclude_if=is_none
    )
    """Beams of each timed search of a translation, in which the task's own take no part; null is 1 and 5."""
    cache_bits: CacheBits = None
    cpu: DeployCpu = None
    real: bool = False
    """Time batches of the evaluation rows too, each padded to its longest row."""
    runs: int = Field(default=30, ge=3)
    """Most timed runs for each engine and shape, after the warm-up."""
    warmup: int = Field(default=3, ge=0)
    """Most runs that are not timed."""
    seconds: float | None = Field(default=10.0, gt=0)
    """Time for the runs of all engines on a shape, which also stop when every median is stable; null takes
    all of the runs."""

    @field_validator("precisions", "batch_sizes", "lengths")
    @classmethod
    def _named_once(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        return _each_once(values)

    @field_validator("beams")
    @classmethod
    def _searched_once(cls, values: tuple[int, ...] | None) -> tuple[object, ...] | None:
        return None if values is None else _each_once(values)

    @model_validator(mode="after")
    def _something_for_each(self) -> Self:
        for runtime in self.runtimes:
            if not set(RUNTIMES[runtime].precisions) & set(self.precisions):
                raise ValueError(
                    f"precisions {list(self.precisions)}: none that runtime {runtime} has; it has "
                    f"{list(RUNTIMES[runtime].precisions)}"
                )
        return self

    @property
    def asked(self) -> tuple[tuple[RuntimeName, Precision], ...]:
        """Requested pairs of runtime and precision, as far as the runtimes support them."""
        return tuple(
            (runtime, precision)
            for runtime in self.runtimes
            for precision in self.precisions
            if precision in RUNTIMES[runtime].precisions
        )

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and tokens of the timed batches, small ones first."""
        return tuple((rows, tokens) for tokens in self.lengths for rows in self.batch_sizes)

    def shape_of(self, rows: int) -> str:
        """Return the name of the shape that stands for batches of so many rows, such as ``32x128``."""
        return f"{rows}x{self.lengths[0]}" if self.beams is None else beam_shape(rows, self.beams[0])


def beam_shape(rows: int, beams: int) -> str:
    """Return the name of the shape of a search: ``32xbeam5`` for batches of 32 rows and 5 beams."""
    return f"{rows}xbeam{beams}"


AnyDeploy = Annotated[NoDeploy | Onnx | DeployEngines, Field(discriminator="kind")]


FLOOR_ROWS = 512
"""Most rows of an evaluation split in the noise floor, a sample that engines are held against on all rows."""


class Gate(Section):
    """Comparison of engines with torch."""

    rows: int | None = Field(default=None, ge=50)
    """The first that many rows of each evaluation split, which engines are compared on; null is all.

    With fewer than 50, noise cannot be distinguished from a fault."""


class Accept(Section):
    """What the user accepts; it decides the verdict on finished results, and changes none of them."""

    loss: float = Field(default=0.5, ge=0, le=100)
    """Points of the task's main score that quantization may cost against the run's FP32 model."""


class Budget(Section):
    """Limits of the work of a run; ``full`` has none."""

    name: Literal["full", "smoke"] = "full"
    """Stands in the Record and in every table."""
    train_steps: int | None = Field(default=None, ge=1)
    """At most that many optimizer steps in each training; null is no limit."""
    evaluation_rows: int | None = Field(default=None, ge=1)
    """The first that many rows of each evaluation split; null is all."""
    calibration_rows: int | None = Field(default=None, ge=1)
    """At most that many rows to calibrate on; null is no limit."""
    benchmark_runs: int | None = Field(default=None, ge=3)
    """At most that many timed runs; null is no limit."""
    benchmark_rows: int | None = Field(default=None, ge=1)
    """No timed batch has more rows, but for the smallest that is asked for; null is no limit."""
    minutes: float | None = Field(default=None, gt=0, exclude_if=is_none)
    """Minutes within which the whole run is to end: rows and steps are chosen, by rates that are measured on
    this machine, and stand in the Record; null is no limit."""


class Machine(Section):
    """Hardware and its use; batches always have ``finetune.batch_size`` rows."""

    accelerator: Literal["cpu", "gpu"] = "cpu"
    """Device of training and evaluation."""
    devices: int = Field(default=1, ge=1)
    """Processes of a training, each on a device of its own (on a CPU: with its share of the threads) and
    with its share of each batch."""
    accumulate: int = Field(default=1, ge=1)
    """Parts of a batch that are computed one after another, for want of memory."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of training: ``bf16`` and ``fp16`` are mixed precision, with weights, ranges and fake
    quantization in FP32. All else computes in FP32, so that scores can be compared."""
    compile: bool = False
    """Train with ``torch.compile``, which first takes minutes to compile, and on a CPU gains nothing."""
    kernels: Literal["auto", "plain"] = "auto"
    """What computes fake quantization in a training: the fastest kernels that the machine has, or plain
    torch, the reference that they are held against."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; null is one for each core that the process may use."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Training saves a checkpoint when so many seconds have passed since the last one."""
    progress: bool = True
    """Draw progress bars."""

    @field_validator("precision")
    @classmethod
    def _exists_on_device(cls, precision: str, known: ValidationInfo) -> str:
        if precision == "fp16" and known.data.get("accelerator") == "cpu":
            raise ValueError("Lightning trains in fp16 on GPUs only; allowed on a CPU are fp32 and bf16")
        return precision

    @property
    def parts(self) -> int:
        """Number of parts that a batch is split into."""
        return self.devices * self.accumulate


class Numerics(Section):
    """Settings of the machine that can change bits of a result, and are part of cache keys."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Kind of device; a CPU and a GPU sum in different orders."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of training."""
    devices: int = 1
    """Over how many processes a batch was split: other sums, other dropout masks."""
    accumulate: int = 1
    """Into how many parts one after another, with the same effects."""
    compile: bool = False
    """Whether training was compiled: fused kernels round elsewhere."""
    kernels: Literal["auto", "plain"] = "auto"
    """What computed fake quantization: the gradients of learned scales are summed in another order."""

    @classmethod
    def of(cls, machine: Machine) -> Numerics:
        """Return the settings of a machine on which trainings depend."""
        return cls(
            device=machine.accelerator,
            precision=machine.precision,
            devices=machine.devices,
            accumulate=machine.accumulate,
            compile=machine.compile,
            kernels=machine.kernels,
        )

    @property
    def inference(self) -> Numerics:
        """Settings of stages that do not train, which compute in FP32, in one process, uncompiled."""
        return Numerics(device=self.device)


class TrainingSetup(Section):
    """Settings that fine-tuning and quantization-aware training share, besides rates and epochs."""

    train_rows: int | None
    """Rows of the train split to draw; null is all of them."""
    train_steps: int | None
    """At most that many optimizer steps; null is no limit."""
    seed: int
    """Seed of the head, the rows, their order and dropout."""
    numerics: Numerics
    """How it is computed, as far as the result shows it."""

    @property
    def unquantized(self) -> TrainingSetup:
        """Settings for a model without quantizers, which do not depend on the fake-quantization kernels."""
        return self.model_copy(update={"numerics": self.numerics.model_copy(update={"kernels": "auto"})})
