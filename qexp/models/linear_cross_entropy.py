"""Cross entropy of an output projection, computed from its inputs some rows at a time.

Logits of a large vocabulary are most of what the training of a translator writes and reads: the product
[tokens, vocabulary], its log-softmax, and the gradients of both. In groups of rows that stay in the cache,
and with the gradient computed beside the loss, none of these is kept (fused linear cross entropy; Liger
Kernel, Hsu et al. 2024, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qexp.quant.row_groups import row_groups

GROUP_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
"""Logits of a group of rows: on a CPU what its caches hold, on a GPU enough to fill it."""
LEAST_PROBABILITY = 1e-30
"""Probability of a label from which on its logarithm is exact."""


@dataclass(frozen=True)
class Targets:
    """What the cross entropy is taken to."""

    labels: Tensor
    """Classes, int64 [N]."""
    smoothing: float = 0.0
    """Label smoothing e: a row's loss is ``-(1 - e) log p[label] - e mean(log p)`` (Szegedy et al., 2016)."""


class LinearCrossEntropy(torch.autograd.Function):
    """The sum over rows of the cross entropy of ``linear(hidden, weight, bias)``, and its gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Targets) -> Tensor:
        """Return the sum, a float32 scalar, as ``torch.nn.functional.cross_entropy`` defines it.

        Args:
            ctx: Context of autograd.
            hidden: Inputs of the projection [N, H].
            weight: Weight of the projection [V, H].
            bias: Bias [V], or None.
            targets: Classes of the rows.
        """
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        with torch.autocast(kind, enabled=False):
            work = _Work(hidden, weight, bias, dtype)
            groups = row_groups(hidden, 4 * len(weight), GROUP_BYTES)
            totals = [work.add(rows, targets) for rows in groups]
            ctx.save_for_backward(*work.gradients(targets.smoothing))
        return torch.stack(totals).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradients of hidden states, weight and bias."""
        (factor,) = grad_outputs
        return *(each if each is None else each * factor for each in ctx.saved_tensors), None


class _Work:
    """Losses of groups of rows, while the gradients of hidden states, weight and bias are summed.

    The gradient of a row's logits is ``p - (1 - e) onehot - e / V``. Its last term is the same for every row
    and class, and is added to the products of the others; and the mean of a row's logits is the product with
    the mean of the weight's rows. Both save a pass over the logits.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.hidden, self.weight, self.bias = hidden, weight.to(dtype), bias
        self.kinds = (hidden.dtype, weight.dtype)
        self.mean_row = weight.float().mean(0)
        self.mean_bias = 0.0 if bias is None else bias.float().mean()
        self.d_hidden = torch.empty_like(hidden, dtype=torch.float32)
        self.d_weight = torch.zeros_like(weight, dtype=torch.float32)
        self.d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)

    def add(self, rows: slice, targets: Targets) -> Tensor:
        """Return the sum of the losses of some rows, and add their part of the gradients."""
        inputs, labels, smoothing = self.hidden[rows], targets.labels[rows, None], targets.smoothing
        narrow = inputs.to(self.weight.dtype)
        logits = nn.functional.linear(narrow, self.weight).float()
        if self.bias is not None:
            logits += self.bias
        p = torch.softmax(logits, 1)
        at_label = logits.gather(1, labels)
        log_sum = _log_sum(logits, p, labels)
        mean = inputs.float() @ self.mean_row + self.mean_bias
        gradient = p.scatter_add_(1, labels, torch.full_like(at_label, smoothing - 1))
        if self.d_bias is not None:
            self.d_bias += gradient.sum(0)
        gradient = gradient.to(self.weight.dtype)
        self.d_hidden[rows] = gradient @ self.weight
        self.d_weight += gradient.T @ narrow
        return (log_sum - (1 - smoothing) * at_label).sum() - smoothing * mean.sum()

    def gradients(self, smoothing: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients, with the term that is the same for all logits."""
        share = smoothing / len(self.weight)
        self.d_hidden -= smoothing * self.mean_row
        self.d_weight -= share * self.hidden.float().sum(0)
        if self.d_bias is not None:
            self.d_bias -= share * len(self.hidden)
        return self.d_hidden.to(self.kinds[0]), self.d_weight.to(self.kinds[1]), self.d_bias


def _log_sum(logits: Tensor, p: Tensor, labels: Tensor) -> Tensor:
    """Return the logarithm of the sum of exponentials [N, 1], on a CPU read off the label's probability."""
    if logits.device.type != "cpu":  # where the condition below would wait for the device in each group
        return _log_sum_by_likeliest(logits, p)
    p_label = p.gather(1, labels)
    if bool((p_label > LEAST_PROBABILITY).all()):
        return logits.gather(1, labels) - p_label.log()
    return torch.logsumexp(logits, 1, keepdim=True)


def _log_sum_by_likeliest(logits: Tensor, p: Tensor) -> Tensor:
    """Return it read off the largest probability, which is never too small, and takes a pass to find."""
    largest, place = logits.max(1, keepdim=True)
    return largest - p.gather(1, place).log()


@dataclass
class ProjectionCall:
    """What an output projection was called with."""

    hidden: Tensor | None = None
    """Its input [..., H], after the quantizer of the input."""
    weight: Tensor | None = None
    """Its weight [V, H], after the quantizer of the weight."""


@contextmanager
def withheld_logits(projection: nn.Linear) -> Iterator[ProjectionCall]:
    """Keep what an output projection is called with, and have it return logits of no row, [0, V]."""
    call = ProjectionCall()

    def forward(hidden: Tensor) -> Tensor:
        call.hidden, call.weight = hidden, projection.weight
        return hidden.new_empty((0, projection.out_features))

    projection.forward = forward  # type: ignore[method-assign,assignment]
    try:
        yield call
    finally:
        del projection.forward
