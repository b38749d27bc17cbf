"""Ranges of pytorch-quantization: the ``_amax`` entries of a state dict.

Names are those of QDQBERT (transformers up to 4.x) and of FasterTransformer's BERT. Sources:
https://github.com/huggingface/transformers/blob/v4.40.2/src/transformers/models/deprecated/qdqbert (there
``models/qdqbert``), https://github.com/NVIDIA/FasterTransformer, examples/pytorch/bert.
"""

from __future__ import annotations

from pathlib import Path

from qexp.errors import QuantizationError
from qexp.quant.calibration.imported import ImportedRange
from qexp.quant.messages import listed

AMAX = "._amax"
SITES = {
    "_input_quantizer": "{}:linear.input",
    "_weight_quantizer": "{}:linear.weight",
    "_aftergemm_quantizer": "{}:linear.output",
    "matmul_q_input_quantizer": "{}:matmul.query",
    "matmul_k_input_quantizer": "{}:matmul.key",
    "matmul_v_input_quantizer": "{}:matmul.value",
    "matmul_a_input_quantizer": "{}:matmul.probs",
    "softmax_input_quantizer": "{}:attention.scores",
    "add_local_input_quantizer": "{}.dropout:residual.input",
    "add_residual_input_quantizer": "{}:residual.input",
}
"""Site of each quantizer of a module, by the quantizer's name in the module."""


def amax_ranges(file: Path) -> list[ImportedRange]:
    """Return the ranges of a state dict in safetensors; the sites of unknown quantizers are empty.

    Raises:
        QuantizationError: The file cannot be read, or holds no range, or one that is not positive.
    """
    from safetensors import SafetensorError, safe_open

    ranges = []
    try:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  no iterator
                if key.endswith(AMAX):
                    sites = _sites(key.removesuffix(AMAX))
                    magnitudes = tensors.get_tensor(key).double().flatten().tolist()
                    ranges.append(ImportedRange.of_magnitude(key, sites, magnitudes))
    except (OSError, SafetensorError) as error:
        raise QuantizationError(f"{file}: cannot be read as safetensors ({error}); write it again") from error
    if not ranges:
        raise QuantizationError(
            f"{file}: no name in it ends with {AMAX}; name the state dict of a model that "
            "pytorch-quantization has calibrated"
        )
    if bad := [each.name for each in ranges if not all(0 < value < float("inf") for value in each.high)]:
        raise QuantizationError(
            f"{file}: ranges that are no positive numbers: {listed(bad)}; calibrate again"
        )
    return ranges


def _sites(quantizer: str) -> tuple[str, ...]:
    module, _, name = quantizer.rpartition(".")
    return (SITES[name].format(module),) if name in SITES else ()
