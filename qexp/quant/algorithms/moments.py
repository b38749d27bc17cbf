"""First and second moments of the inputs of linear layers, collected in one pass of the float model.

Layers that read the same value share its moments. Tokens are the samples, without padding. Sums of products
are float32, all other sums float64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qexp.errors import QuantizationError
from qexp.quant.calibration.padding import Padding
from qexp.quant.insertion.discovery import Example, Side, inputs_of_linears

LAYERS = "layers"
"""Metadata key in the file for the value that each layer reads."""


@dataclass(frozen=True)
class InputMoments:
    """Moments of one value x of width n, over all tokens."""

    mean: Tensor
    """``E[x]``, float32 [n]."""
    largest: Tensor
    """Largest magnitude of each dimension, float32 [n]."""
    gram: Tensor | None
    """``E[x x^T]``, float32 [n, n], or None if not requested."""


class InputMomentsCounter:
    """Accumulator for the moments of all values that linear layers of a model read.

    Args:
        model: Model in floating point.
        gram: Whether to collect second moments, whose memory is the square of a layer's width.
        example: Arguments of a forward pass; a language model of transformers needs none.
    """

    def __init__(self, model: nn.Module, *, gram: bool, example: Example | None = None) -> None:
        self.model, self.gram = model, gram
        self.values = inputs_of_linears(model, example)
        self._sums: dict[str, _Sums] = {}

    @contextmanager
    def observing(self, mask: Tensor | None = None, target_mask: Tensor | None = None) -> Iterator[None]:
        """Accumulate the moments of what the model computes inside the context.

        Args:
            mask: Attention mask [B, S] of the batch, non-zero for tokens that count; None counts all.
            target_mask: Mask of the decoder's tokens, [B, T], for a model with encoder and decoder.
        """
        masks: dict[Side, Tensor | None] = {"source": mask, "target": target_mask}
        paddings = {side: Padding.of(each) for side, each in masks.items()}
        handles = []
        for value in self.values:
            name = value.sites[0][1]
            count = partial(self._count, name, paddings[value.rows])
            handles.append(self.model.get_submodule(name).register_forward_pre_hook(count))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, path: Path) -> None:
        """Write the moments to one safetensors file.

        Raises:
            QuantizationError: If a value was NaN or infinite.
        """
        tensors = {}
        for name, sums in self._sums.items():
            for part, tensor in sums.moments(name).items():
                tensors[f"{name}/{part}"] = tensor
        layers = {
            layer: value.sites[0][1]
            for value in self.values
            for _, layer in value.sites
            if value.sites[0][1] in self._sums
        }
        save_file(tensors, path, metadata={LAYERS: json.dumps(layers)})

    def _count(self, name: str, padding: Padding | None, module: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0].detach()
        rows = None if padding is None else padding.rows(x)
        kept = x.flatten(0, -2) if rows is None else x[rows.expand(x.shape[:-1])]
        if kept.numel():
            sums = self._sums.setdefault(name, _Sums(x.shape[-1], self.gram, x.device))
            sums.add(kept.float())


class _Sums:
    def __init__(self, width: int, gram: bool, device: torch.device) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64, device=device)
        self.largest = torch.zeros(width, device=device)
        self.products = torch.zeros(width, width, device=device) if gram else None

    def add(self, rows: Tensor) -> None:
        """Add tokens, float32 [tokens, width]."""
        self.count += len(rows)
        self.total += rows.sum(0, dtype=torch.float64)
        self.largest = torch.maximum(self.largest, rows.abs().amax(0))
        if self.products is not None:
            self.products.addmm_(rows.T, rows)

    def moments(self, name: str) -> dict[str, Tensor]:
        """Return the moments on the host, by their names in the file.

        Raises:
            QuantizationError: If a moment is NaN or infinite.
        """
        parts = {"mean": (self.total / self.count).float(), "largest": self.largest}
        if self.products is not None:
            parts["gram"] = self.products / self.count
        if not all(bool(torch.isfinite(each).all()) for each in parts.values()):
            raise QuantizationError(
                f"moments of the input of {name}: NaN or infinite; the model computes such values on the "
                "calibration rows, check its weights and the FP32 scores"
            )
        return {part: tensor.cpu().contiguous() for part, tensor in parts.items()}


class MomentsFile(Mapping[str, InputMoments]):
    """Mapping from the name of a layer to the moments of its input, read from the file on access.

    Raises:
        QuantizationError: If the file is not a safetensors file, or has other contents.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                self.layers: dict[str, str] = json.loads((file.metadata() or {})[LAYERS])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise QuantizationError(
                f"{path}: not a file of moments ({type(error).__name__}: {error}); delete its folder, and "
                "run again"
            ) from error

    def __getitem__(self, layer: str) -> InputMoments:
        value = self.layers[layer]
        with safe_open(self.path, framework="pt") as file:
            has_gram = f"{value}/gram" in file.keys()  # noqa: SIM118  not a mapping
            gram = file.get_tensor(f"{value}/gram") if has_gram else None
            return InputMoments(file.get_tensor(f"{value}/mean"), file.get_tensor(f"{value}/largest"), gram)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)
