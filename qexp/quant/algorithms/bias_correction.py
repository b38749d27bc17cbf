"""Bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

The mean output error of quantized weights is subtracted in the bias: ``b += (W - Q(W)) E[x]``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qexp.quant.insertion.sites import Site


def correct_bias(model: nn.Module, site: Site, weight: Tensor, mean: Tensor) -> int:
    """Correct the bias of a linear layer in place, and return the number of corrected biases, 0 or 1.

    Args:
        model: Quantized model; the layer's weight is read through its quantizer.
        site: Site of the layer's weight.
        weight: Weight W before quantization and rounding, [out, in].
        mean: Mean input E[x] of the layer, [in].
    """
    layer: Any = model.get_submodule(site.module)
    if layer.bias is None:
        return 0
    layer.bias.add_((weight - layer.weight) @ mean.to(weight.device))
    return 1
