"""Settings that ranges of activations at run time leave unread, or that do not go with them."""

from __future__ import annotations

from qexp.config.base import refuse_unused
from qexp.config.calibration import OF_ACTIVATIONS, Calibration, Calibrator, ClipCalibrator
from qexp.config.deploy import Gate
from qexp.config.quantization import QuantizationConfig
from qexp.config.refinement import Refinement


def refuse_unread(
    quant_config: QuantizationConfig, calibrator: Calibrator, calibration: Calibration, refinement: Refinement
) -> None:
    """Reject settings of calibration that nothing reads, as all activations are dynamic.

    Raises:
        ValueError: There is such a setting.
    """
    if not quant_config.observes_nothing:
        return
    because = f"scheme.activation.dynamic={quant_config.scheme.activation.dynamic}"
    instead, kind = "scheme.activation.dynamic=null", getattr(calibrator, "kind", None)
    if kind in OF_ACTIVATIONS:
        raise ValueError(
            f"calibrator={kind} with {because}: it chooses ranges of activations, which are found at run "
            f"time; use calibrator=max, mse or sqnr for the weights, or {instead}"
        )
    if isinstance(calibrator, ClipCalibrator):
        refuse_unused(calibrator, ["activation_clip_max"], because, instead)
    unread = [] if refinement.reads_moments else ["samples", "batch_size", "padding"]
    refuse_unused(calibration, [*unread, "weights"], because, instead)


def refuse_gate_rows(quant_config: QuantizationConfig, gate: Gate) -> None:
    """Reject a gate on fewer rows than the evaluation has, where ranges are those of a batch.

    Raises:
        ValueError: ``gate.rows`` is set.
    """
    if quant_config.depends_on_batch and gate.rows is not None:
        raise ValueError(
            f"gate.rows={gate.rows} with scheme.activation.dynamic=tensor: ranges are those of a batch, so "
            "engines are compared with torch on the batches of the evaluation; use gate.rows=null, or "
            "budget.evaluation_rows for both"
        )
