"""Taps on operands of the functions that a module calls in its ``forward``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qexp.config import SiteKind

Tap = Callable[[Tensor], Tensor]
Key = tuple[SiteKind, str]
Family = Literal["product", "sum"]

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("matmul", "bmm", "__matmul__", "einsum"), "product"),
    **dict.fromkeys(("add", "add_", "__add__", "__iadd__"), "sum"),
}
"""Functions of interest, by name."""
IN_PLACE = ("add_", "__iadd__")
NAMES = (("input", "self"), ("other", "mat2"))
"""Keywords of the two operands."""


@dataclass(frozen=True)
class OperandPoint:
    """Operand of a call at which the value of a site can be observed."""

    kind: SiteKind
    name: str
    """Name of the site's module: the calling one, with the number of the product or sum if it has several."""
    module: str
    family: Family
    index: int
    """Number of the call among those of its family that the module makes."""
    operand: int
    """0 is the left operand, 1 the right one."""
    transposed: bool = False
    """Whether the last two axes are exchanged in the call, as those of keys are."""


def widths_of(model: nn.Module, norms: Sequence[str]) -> frozenset[int]:
    """Return the widths of the residual stream of a model: those of its norms."""
    weights = [getattr(model.get_submodule(name), "weight", None) for name in norms]
    return frozenset(weight.shape[-1] for weight in weights if isinstance(weight, Tensor))


def counts(family: Family, pair: Sequence[Tensor], widths: Collection[int]) -> bool:
    """Return whether a call is counted: every product, and sums of two activations [B, T, H].

    How many other sums there are may depend on the batch: a mask is added where there is padding.
    """
    if family == "product":
        return True
    left, right = pair
    width = left.shape[-1] if left.dim() == right.dim() == 3 else None
    return isinstance(width, int) and width in widths and left.shape == right.shape  # symbolic while exported


def operands_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any] | None:
    """Return the two operands of a call, or None unless both are floating-point tensors."""
    values = list(args)
    if function.__name__ == "einsum":
        values = list(values[1]) if len(values) == 2 and isinstance(values[1], list | tuple) else values[1:]
    while len(values) < 2 and (name := next((n for n in NAMES[len(values)] if n in kwargs), None)):
        values.append(kwargs[name])
    pair = values[:2]
    floats = [isinstance(each, Tensor) and each.is_floating_point() for each in pair]
    return pair if len(pair) == 2 and all(floats) and len(values) == 2 else None


class _Tapping(TorchFunctionMode):
    """Mode that passes operands of the calls in one module through taps, while no other is inside it."""

    active: ClassVar[list[_Tapping]] = []

    def __init__(self, taps: Mapping[tuple[Family, int], Mapping[int, Tap]], widths: Collection[int]) -> None:
        super().__init__()
        self.taps, self.widths = taps, widths
        self.counts: dict[Family, int] = {}

    def __enter__(self) -> _Tapping:
        _Tapping.active.append(self)
        return super().__enter__()  # type: ignore[no-any-return,no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        _Tapping.active.remove(self)
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the function on tapped operands, if there are taps on this call."""
        kwargs = kwargs or {}
        family = FAMILIES.get(getattr(func, "__name__", ""))
        if family is None or _Tapping.active[-1] is not self:
            return func(*args, **kwargs)
        pair = operands_of(func, args, kwargs)
        if pair is None or not counts(family, pair, self.widths):
            return func(*args, **kwargs)
        index = self.counts.get(family, 0)
        self.counts[family] = index + 1
        taps = self.taps.get((family, index), {})
        tapped = [taps[place](value) if place in taps else value for place, value in enumerate(pair)]
        if all(new is old for new, old in zip(tapped, pair, strict=True)):
            return func(*args, **kwargs)
        if func.__name__ == "einsum":
            return func(args[0], *tapped)
        return torch.add(*tapped) if func.__name__ in IN_PLACE else func(*tapped)


@dataclass
class CallTaps:
    """Taps on operands of the function calls of one module, until removed."""

    module: nn.Module
    taps: Mapping[tuple[Family, int], Mapping[int, Tap]]
    widths: Collection[int]
    _modes: list[_Tapping] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hooks = [
            self.module.register_forward_pre_hook(self._start),
            self.module.register_forward_hook(self._stop, always_call=True),
        ]

    def remove(self) -> None:
        """Remove the taps."""
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        mode = _Tapping(self.taps, self.widths)
        mode.__enter__()
        self._modes.append(mode)

    def _stop(self, *_: Any) -> None:
        if self._modes:
            self._modes.pop().__exit__(None, None, None)


def attach_calls(
    model: nn.Module, points: Sequence[OperandPoint], tap: Callable[[Key], Tap], widths: Collection[int]
) -> list[CallTaps]:
    """Set the tap of its site on each operand; ``widths`` are those of ``widths_of``."""
    by_module: dict[str, dict[tuple[Family, int], dict[int, Tap]]] = {}
    for point in points:
        site_tap = tap((point.kind, point.name))
        if point.transposed:
            site_tap = partial(_transposed, site_tap)
        calls = by_module.setdefault(point.module, {})
        calls.setdefault((point.family, point.index), {})[point.operand] = site_tap
    return [CallTaps(model.get_submodule(name), taps, widths) for name, taps in by_module.items()]


def _transposed(tap: Tap, value: Tensor) -> Tensor:
    """Pass the transpose of a value through a tap, so that its rows are tokens."""
    rows = value.transpose(-1, -2)
    tapped = tap(rows)
    return value if tapped is rows else tapped.transpose(-1, -2)
