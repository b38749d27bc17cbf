"""``torch.compile``."""

from __future__ import annotations

import torch
from torch import nn


def compile_model(model: nn.Module) -> None:
    """Compile in place."""
    torch.compiler.reset()
    model.compile(dynamic=True)
