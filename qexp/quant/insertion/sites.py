"""Sites: the values of a model that can be quantized, and the hooks that observe them.

A site is a use of a value: a kind (``linear.input``) and the module that uses it. Linear layers and attention
need no knowledge of the architecture. The inputs of residual adds do, because an add is not a module:
``RESIDUAL_OPERANDS`` defines where the two operands of each add can be observed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from torch import nn

from qexp.config import Placement, SiteKind, ValueType
from qexp.quant.module import QuantModule

WEIGHT_KINDS: tuple[SiteKind, ...] = (
    "linear.weight",
    "embedding.weight",
    "layernorm.weight",
    "declared.weight",
)
PROJECTION_KINDS: tuple[SiteKind, ...] = ("attention.context", "attention.output")
FUSED_KINDS: tuple[SiteKind, ...] = ("matmul.query", "matmul.key", "matmul.value")
SCORE_KINDS: tuple[SiteKind, ...] = ("attention.scores", "attention.masked_scores")
ATTENTION_KINDS: tuple[SiteKind, ...] = (*FUSED_KINDS, "matmul.probs", *SCORE_KINDS)
"""Kinds of sites inside attention."""
PADDED_COLUMNS: tuple[SiteKind, ...] = ("matmul.probs", "attention.scores")
"""Kinds of sites with a column for each key; columns of padding do not count."""

RELUS = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class Site:
    """A use of a value, and the name of the value's quantizer."""

    kind: SiteKind
    module: str
    """Name of the module, followed by the name of the activation if it is declared."""
    quantizer: str
    parameter: str = "weight"
    """Name of the weight within its module."""

    @property
    def is_weight(self) -> bool:
        """Whether the value is a parameter."""
        return self.kind in WEIGHT_KINDS

    @property
    def name(self) -> str:
        """Name of the quantizer, if this is its only or first site."""
        place = self.module if self.kind != "declared.weight" else joined(self.module, self.parameter)
        return f"{place}:{self.kind}"


@dataclass(frozen=True)
class WeightParameter:
    """A parameter to quantize, and the axis of its output channels."""

    kind: SiteKind
    module: str
    parameter: str = "weight"
    axis: int = 0

    @property
    def name(self) -> str:
        """Name of the quantizer, if no other module shares the weight."""
        return Site(self.kind, self.module, "", self.parameter).name


@dataclass(frozen=True)
class Operand:
    """Location of an operand of an add: an argument or the output of a module."""

    side: Literal["input", "output"]
    child: str = ""
    """Submodule of the module in the table, as in ``get_submodule``; empty means that module itself."""
    index: int = 0
    """Index of the positional argument, or of the item of a tuple output."""


@dataclass(frozen=True)
class Point:
    """Location at which a hook can observe the value of a site."""

    kind: SiteKind
    module: str
    side: Literal["input", "output"]
    index: int = 0


_POST_NORM = (Operand("input", index=1), Operand("output", "dropout"))
"""Operands of ``LayerNorm(dropout(dense(x)) + residual)`` with the residual as second argument."""

RESIDUAL_OPERANDS: Mapping[str, Mapping[str, tuple[Operand, ...]]] = {
    "bert": {"BertSelfOutput": _POST_NORM, "BertOutput": _POST_NORM},
    "roberta": {"RobertaSelfOutput": _POST_NORM, "RobertaOutput": _POST_NORM},
    "electra": {"ElectraSelfOutput": _POST_NORM, "ElectraOutput": _POST_NORM},
    "mobilebert": {
        "MobileBertSelfOutput": (Operand("input", index=1), Operand("output", "dense")),
        "MobileBertOutput": (Operand("input", index=1), Operand("output", "dense")),
        "OutputBottleneck": _POST_NORM,
        "FFNOutput": (Operand("input", index=1), Operand("output", "dense")),
    },
    "distilbert": {
        "TransformerBlock": (
            Operand("input"),
            Operand("output", "attention"),
            Operand("output", "sa_layer_norm"),
            Operand("output", "ffn"),
        )
    },
}
"""Operands of the residual adds of a module, by ``config.model_type`` and class name.

In DistilBERT the block's input and the first norm's output reach the linear layers through the same tensor at
which the residual is observed. With ``residual.input`` these layers therefore see quantized inputs, too, even
if ``linear.input`` is not requested or the layer is excluded. The same holds in MobileBERT for the input of
each further feed-forward network. Norms that are children of such a module read the sums.
"""


def chosen(placement: Placement, kind: SiteKind, module: str) -> bool:
    """Return whether the placement includes the site."""
    if any(fnmatchcase(module, glob) for glob in placement.exclude):
        return False
    return kind in placement.sites or any(fnmatchcase(f"{module}:{kind}", glob) for glob in placement.include)


def placement_has(placement: Placement, kind: SiteKind) -> bool:
    """Return whether the placement includes any site of a kind."""
    return kind in placement.sites or any(glob.endswith(f":{kind}") for glob in placement.include)


def has_residual_table(model: nn.Module) -> bool:
    """Return whether ``RESIDUAL_OPERANDS`` has the architecture."""
    return getattr(getattr(model, "config", None), "model_type", None) in RESIDUAL_OPERANDS


def weights(model: nn.Module, placement: Placement) -> list[WeightParameter]:
    """Return the weights of the placement; the channels of an embedding are its rows."""
    candidates = [WeightParameter("linear.weight", name) for name in linears(model)]
    candidates += [WeightParameter("embedding.weight", name) for name in _named(model, _is_table)]
    candidates += [
        WeightParameter("layernorm.weight", name)
        for name in norms(model)
        if isinstance(getattr(model.get_submodule(name), "weight", None), nn.Parameter)
    ]
    for name, module in declaring(model):
        candidates += [
            WeightParameter("declared.weight", name, *declared)
            for declared in module.declared_weights.items()
        ]
    chosen_weights: dict[tuple[str, str], WeightParameter] = {}
    for weight in candidates:
        if chosen(placement, weight.kind, weight.module):
            # A linear layer may also declare its weight.
            chosen_weights.setdefault((weight.module, weight.parameter), weight)
    return list(chosen_weights.values())


def points(model: nn.Module, placement: Placement, projections: Sequence[str] = ()) -> list[Point]:
    """Return the points for the activations of the placement, except those inside attention.

    Args:
        model: Model to observe.
        placement: Placement with the requested sites.
        projections: Linear layers that read the output of attention.

    """
    candidates = [Point("linear.input", name, "input") for name in linears(model)]
    candidates += [Point("attention.context", name, "input") for name in projections]
    candidates += [Point("attention.output", name, "output") for name in projections]
    candidates += [Point("linear.output", name, "output") for name in linears(model)]
    candidates += [Point("embedding.output", name, "output") for name in _named(model, _is_embedding)]
    candidates += [Point("layernorm.input", name, "input") for name in norms(model)]
    candidates += [Point("layernorm.output", name, "output") for name in norms(model)]
    candidates += nonlinearities(model)
    if has_residual_table(model):
        candidates += _residual_points(model)
    return [point for point in candidates if chosen(placement, point.kind, point.module)]


def value_type(model: nn.Module, placement: Placement, kind: SiteKind, module: str) -> ValueType:
    """Return the value type at a site: the declared one, or one inferred if the placement is typed."""
    if kind == "declared.activation":
        owner, _, name = module.rpartition(".")
        declared: ValueType = cast("QuantModule", model.get_submodule(owner)).declared_activations[name]
        return declared
    if placement.typed and kind == "matmul.probs":
        return "softmax"
    if placement.typed and kind == "activation.output" and isinstance(model.get_submodule(module), RELUS):
        return "relu"
    return "act"


def norms(model: nn.Module) -> list[str]:
    """Return the names of all norms."""
    return _named(model, _is_norm)


def relus(model: nn.Module) -> list[str]:
    """Return the names of all ReLUs."""
    return _named(model, lambda module: isinstance(module, RELUS))


def nonlinearities(model: nn.Module) -> list[Point]:
    """Return the outputs of all nonlinearities."""
    return [Point("activation.output", name, "output") for name in _named(model, is_nonlinearity)]


def declaring(model: nn.Module) -> list[tuple[str, QuantModule]]:
    """Return all modules that can declare weights or activations, with their names."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, QuantModule)]


def joined(*names: str) -> str:
    """Join nested module names; the model itself has an empty name."""
    return ".".join(filter(None, names))


def linears(model: nn.Module) -> list[str]:
    """Return the names of all linear layers."""
    return _named(model, lambda module: isinstance(module, nn.Linear))


def own_linears(model: nn.Module) -> list[str]:
    """Return the names of the linear layers that share no parameter with another module."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return [
        name
        for name in linears(model)
        if all(uses[id(parameter)] == 1 for parameter in model.get_submodule(name).parameters())
    ]


def _named(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[str]:
    return [name for name, module in model.named_modules() if predicate(module)]


def _is_embedding(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)


def _is_table(module: nn.Module) -> bool:
    """Return whether the module is an embedding other than a fixed sinusoidal table, as in Marian."""
    return _is_embedding(module) and "Sinusoidal" not in type(module).__name__


def _is_norm(module: nn.Module) -> bool:
    standard = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return standard or type(module).__name__.endswith(("LayerNorm", "RMSNorm", "NoNorm"))


def is_nonlinearity(module: nn.Module) -> bool:
    """Return whether the module is a nonlinearity of torch or transformers, except softmax and attention."""
    standard = type(module).__module__ in ("torch.nn.modules.activation", "transformers.activations")
    return standard and "oftm" not in type(module).__name__ and not isinstance(module, nn.MultiheadAttention)


def _residual_points(model: nn.Module) -> list[Point]:
    table = RESIDUAL_OPERANDS[cast("Any", model).config.model_type]
    adders = [
        (name, module, table[type(module).__name__])
        for name, module in model.named_modules()
        if type(module).__name__ in table
    ]
    operand_points = [
        Point("residual.input", joined(name, operand.child), operand.side, operand.index)
        for name, _, operands in adders
        for operand in operands
    ]
    sums = [
        joined(name, child)
        for name, module, _ in adders
        for child, norm in module.named_children()
        if _is_norm(norm)
    ]
    return operand_points + [Point("residual.sum", name, "input") for name in sums]
