"""Attention of a model: the linear layers around it, and products and sums that functions compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from qexp.config import Placement, SiteKind
from qexp.quant.insertion.discovery import Example, TensorRecorder, Value, run_once
from qexp.quant.insertion.function_calls import FunctionCalls, find_calls
from qexp.quant.insertion.function_taps import attach_calls
from qexp.quant.insertion.hooks import AttentionSwitch, AttentionTaps, Handle, attach
from qexp.quant.insertion.sites import (
    FUSED_KINDS,
    Point,
    chosen,
    has_residual_table,
    linears,
    norms,
    placement_has,
)


@dataclass(frozen=True)
class AttentionLinears:
    """The linear layers before and after the attention of a module."""

    before: tuple[tuple[str, ...], ...]
    """Query, key and value projections: the layers that run inside the module before it attends, by the
    tensor that they read. Those that read the same one can be one matrix product."""
    after: str | None
    """Output projection: the layer that runs next."""


def fused(values: Sequence[Value], attentions: Mapping[str, AttentionLinears]) -> list[Value]:
    """Merge the values that belong to one fused projection to queries, keys and values.

    Queries computed from another sequence than keys and values are a product of their own.
    """
    merged = list(values)
    for module, attention in attentions.items():
        keys = {(kind, module) for kind in FUSED_KINDS}
        keys |= {("linear.output", name) for names in attention.before for name in names}
        parts = [value for value in merged if keys & set(value.sites)]
        for rows in dict.fromkeys(value.rows for value in parts):
            first, *rest = [value for value in parts if value.rows == rows]
            names = {site: value.name for value in (first, *rest) for site in value.sites}
            for value in rest:
                first.sites.extend(value.sites)
                merged.remove(value)
            width = first.width if all(value.width == first.width for value in rest) else None
            merged[merged.index(first)] = replace(first, width=width, parts=names if rest else {})
    return merged


def functions_of(model: nn.Module, placement: Placement, example: Example | None = None) -> FunctionCalls:
    """Return the products and sums that the placement includes and functions compute.

    Products of attention are looked for in modules that do not use transformers' ``AttentionInterface``, and
    residual adds in architectures that ``RESIDUAL_OPERANDS`` does not have.
    """
    attention = any(placement_has(placement, kind) for kind in (*FUSED_KINDS, "matmul.probs"))
    sums: tuple[SiteKind, ...] = ("residual.input", "residual.sum")
    residuals = any(placement_has(placement, kind) for kind in sums) and not has_residual_table(model)
    if not attention and not residuals:
        return FunctionCalls()
    interface: set[str] = set()

    def run() -> None:
        handles: list[Handle] = [AttentionSwitch(model)]
        handles += [
            AttentionTaps(module, {"matmul.query": partial(_noted, interface, name)})
            for name, module in model.named_modules()
        ]
        run_once(model, handles, example)

    found = find_calls(model, run, attention=attention, residuals=residuals, norms=norms(model))
    operands = [
        point
        for point in found.operands
        if (point.family == "sum" or point.module not in interface)
        and chosen(placement, point.kind, point.name)
    ]
    summed = [name for name in found.sums if chosen(placement, "residual.sum", name)]
    return FunctionCalls(operands, summed, found.widths)


def _noted(names: set[str], name: str, value: Tensor) -> Tensor:
    names.add(name)
    return value


def attentions(
    model: nn.Module, example: Example | None = None, functions: FunctionCalls | None = None
) -> dict[str, AttentionLinears]:
    """Return the linear layers around each attention, by the name of the attending module."""
    recorder = TensorRecorder(two_sequences=False)
    names = linears(model)
    handles: list[Handle] = [AttentionSwitch(model)]
    handles += attach(model, [Point("linear.input", name, "input") for name in names], recorder.tap)
    handles += [
        AttentionTaps(module, {"matmul.value": recorder.tap(("matmul.value", name))})
        for name, module in model.named_modules()
    ]
    functions = functions or FunctionCalls()
    values = [point for point in functions.operands if point.kind == "matmul.value"]
    handles += attach_calls(model, values, recorder.tap, functions.widths)
    run_once(model, handles, example)
    keys = [key for key, _ in recorder.seen]
    attentions_by_module: dict[str, AttentionLinears] = {}
    for index, (kind, module) in enumerate(keys):
        if kind == "matmul.value" and module not in attentions_by_module:
            before: dict[int, dict[str, None]] = {}
            for (seen, name), tensor in recorder.seen[:index]:
                if seen == "linear.input" and _within(name, module):
                    before.setdefault(id(tensor), {})[name] = None
            after = next((name for seen, name in keys[index + 1 : index + 2] if seen == "linear.input"), None)
            products = tuple(tuple(names) for names in before.values())
            attentions_by_module[module] = AttentionLinears(products, after)
    return attentions_by_module


def _within(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")
