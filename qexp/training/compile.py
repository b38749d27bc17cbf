"""``torch.compile`` for trainings: what ``machine.compile`` does.

The encoder's forward and backward become one graph each, with dynamic batch and length; LightningModule,
loss, optimizer and hooks of Lightning stay as they are. Quantizers are in the graph (``traced`` in
:mod:`qexp.quant.kernels.reference`). It takes its time before the first step, and again when a shape falls on
the other side of a threshold of the compiler, so it pays in long trainings. What does not train is
not compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from qexp.errors import TrainingError


@contextmanager
def compiled(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Compile in place, so that the names in the state dict stay; and word a compiler's failure.

    Raises:
        TrainingError: torch.compile cannot compile the model, or finds no compiler.
    """
    if not wanted:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    torch.compiler.reset()  # graphs of an earlier model in this process count against the limit of graphs
    model.compile(dynamic=True)
    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"machine.compile=true: torch.compile fails on this model or machine: {first}; "
            "set machine.compile=false, or install the C++ compiler (CPU) or Triton (GPU) that it needs"
        ) from error
