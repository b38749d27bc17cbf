"""``torch.compile`` for training, enabled by ``machine.compile``.

The forward and the backward pass of the encoder become one graph each, with dynamic batch size and length;
LightningModule, loss, optimizer and Lightning's hooks are not compiled. Quantizers are part of the graph
(``traced`` in :mod:`qexp.quant.kernels.reference`). Compilation takes time before the first step, and again
when a shape crosses a threshold of the compiler. On a CPU the steps are no faster afterwards (docs/speed.md).
Only training is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from qexp.errors import TrainingError


@contextmanager
def compiled(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Compile a model in place, which keeps the names of its state dict, and translate the compiler's errors.

    Args:
        model: Model to compile.
        wanted: False does nothing.

    Raises:
        TrainingError: If torch.compile cannot compile the model, or finds no compiler.
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


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run a model that :func:`compiled` compiled as it is, as all that does not train does."""
    if model._compiled_call_impl is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
