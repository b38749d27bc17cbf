"""Modules that somebody writes: they say what of them is quantized, and fetch it in ``forward``.

    class Dense(QuantModule):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
            self.declare_weight("kernel", axis=1)
            self.declare_activation("output", "relu")

        def forward(self, x: Tensor) -> Tensor:
            return self.quantized("output", (x @ self.quantized_weight("kernel")).relu())

Alone, such a module computes in floating point. ``insert`` finds it anywhere in a model with the site
kinds of ``DECLARED``, beside all others; see docs/own_module.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from torch import Tensor, nn

from qexp.config import Placement, ValueType
from qexp.errors import QuantizationError

DECLARED = Placement(name="declared", sites=("declared.weight", "declared.activation"))
"""All that modules declare, and nothing else."""


class QuantModule(nn.Module):
    """Base, or mixin, of a module that declares its weights and activations.

    Attributes:
        declared_weights: axis of the output channels by name of the parameter.
        declared_activations: what is known of the values, by name.
        taps: what declared activations pass through; empty without quantizers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.declared_weights: dict[str, int] = {}
        self.declared_activations: dict[str, ValueType] = {}
        self.taps: dict[str, Callable[[Tensor], Tensor]] = {}

    def declare_weight(self, name: str, axis: int = 0) -> None:
        """Have a parameter quantized.

        Args:
            name: attribute that holds the ``nn.Parameter``, which exists already.
            axis: axis of its output channels: each index has a range of its own in a per-channel scheme.

        Raises:
            QuantizationError: no such parameter, or it has no such axis.
        """
        parameter = self._parameters.get(name)
        if parameter is None:
            own = ", ".join(key for key, value in self._parameters.items() if value is not None)
            raise QuantizationError(
                f"declare_weight({name!r}): {type(self).__name__} has no such parameter, it has "
                f"{own or 'none'}: assign self.{name} = nn.Parameter(...) before it is declared"
            )
        if not 0 <= axis < parameter.dim():
            raise QuantizationError(
                f"declare_weight({name!r}, axis={axis}): the parameter is {list(parameter.shape)}, "
                f"allowed are 0 to {parameter.dim() - 1}"
            )
        self.declared_weights[name] = axis

    def declare_activation(self, name: str, values: ValueType = "act") -> None:
        """Have what passes ``quantized`` under this name quantized.

        Args:
            name: any name without a dot; one quantizer for each.
            values: ``relu`` starts the range at 0, ``softmax`` fixes it to [0, 1]; ``act`` knows nothing.

        Raises:
            QuantizationError: the name is taken or holds a dot, or ``values`` is none of the three.
        """
        if name in self.declared_activations or "." in name or not name:
            taken = ", ".join(self.declared_activations) or "none so far"
            raise QuantizationError(
                f"declare_activation({name!r}): names are without dots and differ within "
                f"{type(self).__name__}, taken are: {taken}"
            )
        if values not in get_args(ValueType):
            allowed = ", ".join(get_args(ValueType))
            raise QuantizationError(f"declare_activation({name!r}, {values!r}): allowed are {allowed}")
        self.declared_activations[name] = values

    def quantized_weight(self, name: str) -> Tensor:
        """The declared weight to compute with, of the parameter's shape.

        Raises:
            QuantizationError: no such weight was declared.
        """
        if name not in self.declared_weights:
            raise self._undeclared("quantized_weight", name, "declare_weight", self.declared_weights)
        weight: Tensor = getattr(self, name)  # its quantizer is a parametrization
        return weight

    def quantized(self, name: str, x: Tensor) -> Tensor:
        """The declared activation to compute with: ``x``, of its shape.

        Raises:
            QuantizationError: no such activation was declared.
        """
        if name not in self.declared_activations:
            raise self._undeclared("quantized", name, "declare_activation", self.declared_activations)
        tap = self.taps.get(name)
        return x if tap is None else tap(x)

    def _undeclared(
        self, called: str, name: str, declare: str, declared: dict[str, Any]
    ) -> QuantizationError:
        return QuantizationError(
            f"{called}({name!r}): {type(self).__name__} declared {', '.join(declared) or 'nothing'}; "
            f"call self.{declare}({name!r}) in its __init__"
        )
