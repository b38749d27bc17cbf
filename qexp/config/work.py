"""What becomes of the result, how much work it is worth, and what it is computed on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qexp.config.section import Section


class NoDeploy(Section):
    """Nothing is exported."""

    kind: Literal["none"]
    """Tag of the section."""


class Onnx(Section):
    """Export to ONNX with Q/DQ pairs, and the parity check of the file."""

    kind: Literal["onnx"]
    """Tag of the section."""


class OnnxRuntime(Section):
    """Export, parity, and a benchmark in ONNX Runtime on the CPU."""

    kind: Literal["onnxruntime"]
    """Tag of the section."""
    batch_sizes: tuple[int, ...] = (1, 32)
    """Rows in a timed batch."""
    length: int = Field(default=128, ge=8)
    """Tokens in each row of a timed batch."""
    runs: int = Field(default=30, ge=3)
    """Timed runs for each graph and batch size, after the warm-up."""
    warmup: int = Field(default=3, ge=0)
    """Runs that are not timed."""


AnyDeploy = Annotated[NoDeploy | Onnx | OnnxRuntime, Field(discriminator="kind")]


class Budget(Section):
    """How much work; ``full`` leaves everything as it is."""

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


class Machine(Section):
    """What the run is computed on."""

    accelerator: Literal["cpu", "gpu"] = "cpu"
    """Device of training and evaluation."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; null is one for each core that the process may use."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Training saves a checkpoint when so many seconds have passed since the last one."""
    progress: bool = True
    """Draw progress bars."""


class Numerics(Section):
    """The part of the machine that changes bits of a result: part of the keys of what is computed."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Kind of device; a CPU and a GPU sum in different orders."""
    precision: Literal["fp32"] = "fp32"
    """Arithmetic of training and evaluation."""
