"""Quantizers of a model during quantization-aware training."""

from __future__ import annotations

from qexp.config import AnyCalibrator, Qat
from qexp.quant.insertion.quantized_model import QuantizedModel


def start_training(quantization: QuantizedModel, method: Qat, calibrator: AnyCalibrator | None) -> None:
    """Switch all quantizers to the mode that a method trains with.

    Args:
        quantization: Quantizers with ranges.
        method: Settings of the training.
        calibrator: Calibrator of the weights, if their ranges are found anew after each step.

    Raises:
        QuantizationError: If a quantizer has no range yet.
    """
    if method.ranges == "learned":
        quantization.learn(
            zero_points=method.zero_points == "learned", ends=method.range_parameters == "ends"
        )
    elif method.ranges == "ema":
        quantization.use_ema(
            method.range_decay,
            magnitude=method.range_statistic == "magnitude",
            restart=method.range_start == "first_batch",
        )
    else:
        quantization.freeze()
    if method.recalibrate_weights == "each_step" and calibrator is not None:
        quantization.follow_weights(calibrator)
    for quantizer in quantization.quantizers.values():
        quantizer.gradient = method.gradient
        quantizer.renew_bounds()


def delay_head(quantization: QuantizedModel, steps: int, step: int) -> None:
    """Leave layers outside the base model in floating point until ``step`` reaches ``steps``."""
    model = quantization.model
    headless = getattr(model, "base_model", None) is model
    prefix = "" if headless else f"{getattr(model, 'base_model_prefix', '')}."
    quantizers = quantization.quantizers
    for site in quantization.sites:
        if not site.module.startswith(prefix):
            quantizers[site.quantizer].delayed = step < steps
