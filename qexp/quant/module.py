"""Base class for user modules that declare which of their weights and activations are quantized.

    class Dense(QuantModule):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
            self.declare_weight("kernel", axis=1)
            self.declare_activation("output", "relu")

        def forward(self, x: Tensor) -> Tensor:
            return self.quantized("output", (x @ self.quantized_weight("kernel")).relu())

Without quantizers, such a module computes in floating point. ``insert`` finds it anywhere in a model if the
placement has the site kinds of ``DECLARED``, alone or beside others; see docs/own_module.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from torch import Tensor, nn

from qexp.config import Placement, ValueType
from qexp.errors import QuantizationError

DECLARED = Placement(name="declared", sites=("declared.weight", "declared.activation"))
"""Placement of everything that modules declare, and nothing else."""


class QuantModule(nn.Module):
    """Base class or mixin of a module that declares its quantized weights and activations.

    Attributes:
        declared_weights: Axis of the output channels, by parameter name.
        declared_activations: Value type of each activation, by name.
        taps: Function that each declared activation passes through; empty without quantizers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.declared_weights: dict[str, int] = {}
        self.declared_activations: dict[str, ValueType] = {}
        self.taps: dict[str, Callable[[Tensor], Tensor]] = {}

    def declare_weight(self, name: str, axis: int = 0) -> None:
        """Declare a parameter to be quantized.

        Args:
            name: Attribute that holds the ``nn.Parameter``, which must already exist.
            axis: Axis of its output channels, which have a range each in a per-channel scheme.

        Raises:
            QuantizationError: If there is no such parameter, or it has no such axis.
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
        """Declare an activation, the value passed to ``quantized`` under this name, to be quantized.

        Args:
            name: Any name without a dot. Each name has its own quantizer.
            values: Value type: ``relu`` starts the range at 0, ``softmax`` fixes it to [0, 1], ``act``
                assumes nothing.

        Raises:
            QuantizationError: If the name is taken or contains a dot, or ``values`` is none of the three.
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
        """Return the declared weight to compute with, in the shape of the parameter.

        Raises:
            QuantizationError: If no such weight was declared.
        """
        if name not in self.declared_weights:
            raise self._undeclared("quantized_weight", name, "declare_weight", self.declared_weights)
        weight: Tensor = getattr(self, name)  # quantized by a parametrization
        return weight

    def quantized(self, name: str, x: Tensor) -> Tensor:
        """Return the declared activation ``x`` to compute with, in the same shape.

        Raises:
            QuantizationError: If no such activation was declared.
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
