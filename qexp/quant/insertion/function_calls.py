"""Matrix products and residual adds that a model computes in functions, found by running it once.

Attention that does not go through transformers' ``AttentionInterface`` multiplies in functions, and residuals
are added in functions. A ``TorchFunctionMode`` sees each call while a module runs. A call is known by the
innermost module with calls of interest around it, and by its number among those that the module makes.

A product is one of attention if its result reaches a softmax: its operands are queries and keys. The product
that reads what the softmax gives has probabilities and values. A sum is one of the residual stream if both
operands are activations [B, T, H] of the width of a norm, outside nonlinearities. In a module that has tables
of embeddings, only sums behind an attention are: those before it sum embeddings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qexp.config import SiteKind
from qexp.quant.insertion.function_taps import FAMILIES, Family, OperandPoint, counts, operands_of, widths_of
from qexp.quant.insertion.sites import is_nonlinearity

ATTENTION = ("softmax", "scaled_dot_product_attention")
"""Functions whose results make what depends on them come behind an attention."""


@dataclass
class _Call:
    """A call of interest: the modules around it, from the outermost on, and its tensors."""

    family: Family
    function: str
    stack: tuple[tuple[str, int], ...]
    """Names of the modules, each with the number of its run; a shared module runs several times."""
    operands: tuple[Tensor, Tensor]
    result: Tensor
    kinds: tuple[SiteKind, SiteKind] | None = None
    behind_attention: bool = False
    """Whether an operand depends on the result of an attention."""


class _Recorder(TorchFunctionMode):
    """Recorder of the calls of one forward pass, and of what reaches a softmax.

    Tensors carry marks through functions: the products that they come from, whether they are probabilities,
    and whether they depend on any. They are kept alive, so that their ids differ.
    """

    def __init__(self, widths: Collection[int]) -> None:
        super().__init__()
        self.widths = widths
        self.stack: list[tuple[str, int]] = []
        self.runs: Counter[str] = Counter()
        self.calls: list[_Call] = []
        self.products: dict[int, set[int]] = {}
        self.probabilities: set[int] = set()
        self.behind_attention: set[int] = set()
        self.alive: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the function, record it, and pass marks on."""
        kwargs = kwargs or {}
        before = _tensors((*args, *kwargs.values()))
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            for each in _tensors([result]):
                self._inherit(before, each)
            return result
        self.alive += [result, before]
        name = getattr(func, "__name__", "")
        if name in ATTENTION:
            self.behind_attention.add(id(result))
        if name == "softmax":
            self._reach(before[0])
            self.products[id(result)] = set()
            self.probabilities.add(id(result))
            return result
        self._inherit(before, result)
        pair = operands_of(func, args, kwargs) if name in FAMILIES else None
        if pair is not None and counts(FAMILIES[name], pair, self.widths):
            self._record(name, pair, result)
        return result

    def enter(self, name: str, *_: Any) -> None:
        """Note that a module begins to run; a forward pre-hook."""
        self.runs[name] += 1
        self.stack.append((name, self.runs[name]))

    def leave(self, *_: Any) -> None:
        """Note that the innermost module has run; a forward hook."""
        self.stack.pop()

    def _record(self, name: str, pair: list[Tensor], result: Tensor) -> None:
        call = _Call(
            FAMILIES[name],
            name,
            stack=tuple(self.stack),
            operands=(pair[0], pair[1]),
            result=result,
            behind_attention=any(id(each) in self.behind_attention for each in pair),
        )
        self.calls.append(call)
        if call.family == "product":
            if id(pair[0]) in self.probabilities:
                call.kinds = ("matmul.probs", "matmul.value")
                self.probabilities.discard(id(result))
                self.products[id(result)] = set()
            else:
                self.products[id(result)] = {len(self.calls) - 1}

    def _inherit(self, before: Iterable[Tensor], result: Tensor) -> None:
        self.alive.append(result)
        products: set[int] = set().union(*(self.products.get(id(each), set()) for each in before))
        self.products[id(result)] = products | self.products.get(id(result), set())
        if any(id(each) in self.probabilities for each in before):
            self.probabilities.add(id(result))
        if any(id(each) in self.behind_attention for each in before):
            self.behind_attention.add(id(result))

    def _reach(self, scores: Tensor) -> None:
        for index in self.products.get(id(scores), set()):
            if self.calls[index].kinds is None:
                self.calls[index].kinds = ("matmul.query", "matmul.key")


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


@dataclass(frozen=True)
class FunctionCalls:
    """Calls of interest of a model."""

    operands: Sequence[OperandPoint] = ()
    """Operands of attention products and of residual adds."""
    sums: Sequence[str] = ()
    """Norms that read the result of a residual add."""
    widths: frozenset[int] = frozenset()
    """Widths of the residual stream."""


def find_calls(
    model: nn.Module, run: Callable[[], None], *, attention: bool, residuals: bool, norms: Sequence[str]
) -> FunctionCalls:
    """Return the attention products and residual adds that ``run`` reaches in functions.

    Args:
        model: Model that ``run`` runs once.
        run: Function that runs it in evaluation mode, without gradients.
        attention: Whether to look for products of attention.
        residuals: Whether to look for residual adds.
        norms: Names of all norms.
    """
    widths = widths_of(model, norms)
    recorder = _Recorder(widths)
    read: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(recorder.enter, name)))
        hooks.append(module.register_forward_hook(recorder.leave, always_call=True))
    for name in norms:
        keep = partial(_keep, read, name)
        hooks.append(model.get_submodule(name).register_forward_pre_hook(keep))
    try:
        with recorder:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    wanted = [call for call in recorder.calls if attention and call.kinds is not None]
    adds = [call for call in recorder.calls if residuals and _adds_to_residual(model, call)]
    results = {id(call.result) for call in adds}
    sums = [name for name, tensor in read.items() if id(tensor) in results]
    return FunctionCalls(_points(recorder.calls, [*wanted, *adds]), sums, widths)


def _keep(read: dict[str, Tensor], name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        read.setdefault(name, args[0])


def _adds_to_residual(model: nn.Module, call: _Call) -> bool:
    if call.family != "sum":
        return False
    caller = model.get_submodule(call.stack[-1][0])
    embeds = any(isinstance(child, nn.Embedding) for child in caller.children())
    return not is_nonlinearity(caller) and (call.behind_attention or not embeds)


def _points(calls: Sequence[_Call], wanted: Sequence[_Call]) -> list[OperandPoint]:
    """Number the calls in each run of a module that makes one of ``wanted``, and name their operands."""
    chosen = {id(call) for call in wanted}
    owners = {call.stack[-1][0] for call in wanted}
    numbers: Counter[tuple[str, int, str]] = Counter()
    points: dict[OperandPoint, None] = {}  # the same for each run of a shared module
    for call in calls:
        owner = next((entry for entry in reversed(call.stack) if entry[0] in owners), None)
        if owner is None:
            continue
        index = numbers[*owner, call.family]
        numbers[*owner, call.family] += 1
        if id(call) in chosen:
            number = numbers[*owner, "scores"]
            numbers[*owner, "scores"] += call.kinds == ("matmul.query", "matmul.key")
            points |= dict.fromkeys(_operand_points(call, owner[0], index=index, number=number))
    return list(points)


def _operand_points(call: _Call, owner: str, *, index: int, number: int) -> list[OperandPoint]:
    """Return both operands of a call; ``number`` counts the products of its module that reach a softmax."""
    if call.kinds is None:
        name = f"{owner}.add_{index}"
        return [
            OperandPoint(
                "residual.input", f"{name}.{operand}", owner, family="sum", index=index, operand=operand
            )
            for operand in (0, 1)
        ]
    scores = call.kinds[0] == "matmul.query"
    name = f"{owner}.matmul_{number}" if scores and number else owner
    transposed = scores and call.function != "einsum"
    return [
        OperandPoint(
            kind,
            name,
            owner,
            family="product",
            index=index,
            operand=operand,
            transposed=transposed and operand == 1,
        )
        for operand, kind in enumerate(call.kinds)
    ]
