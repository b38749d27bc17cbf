"""Sites: which values of a model are quantized, and where they can be caught.

A site is a use of a value: a kind (``linear.input``) and the module that uses it. Linear layers and
attention need no knowledge of the architecture. The inputs of residual adds do, as an add is no
module: ``RESIDUAL_OPERANDS`` says where the two operands of each add come by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, cast

from torch import nn

from qexp.config import Placement, SiteKind, ValueType
from qexp.errors import QuantizationError
from qexp.quant.module import QuantModule

WEIGHT_KINDS: tuple[SiteKind, ...] = ("linear.weight", "embedding.weight", "declared.weight")
PROJECTION_KINDS: tuple[SiteKind, ...] = ("attention.context", "attention.output")
FUSED_KINDS: tuple[SiteKind, ...] = ("matmul.query", "matmul.key", "matmul.value")
SCORE_KINDS: tuple[SiteKind, ...] = ("attention.scores", "attention.masked_scores")
ATTENTION_KINDS: tuple[SiteKind, ...] = (*FUSED_KINDS, "matmul.probs", *SCORE_KINDS)
"""Kinds of sites inside attention."""
PADDED_COLUMNS: tuple[SiteKind, ...] = ("matmul.probs", "attention.scores")
"""Kinds of sites with a column for each key, of which those of padding do not count."""

RELUS = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class Site:
    """A use of a value, and the name of the value's quantizer."""

    kind: SiteKind
    module: str
    """Name of the module; of a declared activation, followed by its own name."""
    quantizer: str
    parameter: str = "weight"
    """Name of a weight within its module."""

    @property
    def is_weight(self) -> bool:
        """Whether the value is a parameter."""
        return self.kind in WEIGHT_KINDS

    @property
    def name(self) -> str:
        """What its quantizer is called, where it is the only or the first of its sites."""
        place = self.module if self.kind != "declared.weight" else joined(self.module, self.parameter)
        return f"{place}:{self.kind}"


@dataclass(frozen=True)
class Weight:
    """A parameter to be quantized, and the axis of its output channels."""

    kind: SiteKind
    module: str
    parameter: str = "weight"
    axis: int = 0

    @property
    def name(self) -> str:
        """What its quantizer is called, where no other module shares the weight."""
        return Site(self.kind, self.module, "", self.parameter).name


@dataclass(frozen=True)
class Operand:
    """Where an operand of an add comes by: an argument or the output of a module."""

    side: Literal["input", "output"]
    child: str = ""
    """Module below the one in the table, as in ``get_submodule``; empty is that module itself."""
    index: int = 0
    """Which positional argument, or which item of an output that is a tuple."""


@dataclass(frozen=True)
class Point:
    """A place where a hook can catch the value of a site."""

    kind: SiteKind
    module: str
    side: Literal["input", "output"]
    index: int = 0


_POST_NORM = (Operand("input", index=1), Operand("output", "dropout"))
"""``LayerNorm(dropout(dense(x)) + residual)``, the residual being the second argument."""

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
"""By ``config.model_type`` and class name: the operands of the residual adds of such a module.

In DistilBERT the block's input and the first norm's output reach the linear layers through the very
place where the residual is caught: with ``residual.input`` those layers see quantized inputs too, also
where ``linear.input`` is not wanted or the layer is excluded. In MobileBERT it is the same of the input of
each further feed-forward network. Norms that are children of such a module take the sums.
"""


def chosen(placement: Placement, kind: SiteKind, module: str) -> bool:
    """Whether the placement wants the site."""
    return kind in placement.sites and not any(fnmatchcase(module, glob) for glob in placement.exclude)


def weights(model: nn.Module, placement: Placement) -> list[Weight]:
    """The weights of the placement; the channels of an embedding are its rows."""
    found = [Weight("linear.weight", name) for name in linears(model)]
    found += [Weight("embedding.weight", name) for name in _named(model, _is_table)]
    for name, module in declaring(model):
        found += [Weight("declared.weight", name, *each) for each in module.declared_weights.items()]
    wanted: dict[tuple[str, str], Weight] = {}
    for weight in found:
        if chosen(placement, weight.kind, weight.module):
            wanted.setdefault((weight.module, weight.parameter), weight)  # a linear layer may declare, too
    return list(wanted.values())


def points(model: nn.Module, placement: Placement, projections: Sequence[str] = ()) -> list[Point]:
    """Where to catch the activations of the placement, but for those inside attention.

    Args:
        model: the model.
        placement: what is wanted.
        projections: linear layers that take what attention computed.

    Raises:
        QuantizationError: residual inputs of an architecture that is not in the table.
    """
    found = [Point("linear.input", name, "input") for name in linears(model)]
    found += [Point("attention.context", name, "input") for name in projections]
    found += [Point("attention.output", name, "output") for name in projections]
    found += [Point("linear.output", name, "output") for name in linears(model)]
    found += [Point("embedding.output", name, "output") for name in _named(model, _is_embedding)]
    found += [Point("layernorm.input", name, "input") for name in norms(model)]
    found += [Point("layernorm.output", name, "output") for name in norms(model)]
    found += nonlinearities(model)
    if {"residual.input", "residual.sum"} & set(placement.sites):
        found += _residual_points(model)
    return [point for point in found if chosen(placement, point.kind, point.module)]


def value_type(model: nn.Module, placement: Placement, kind: SiteKind, module: str) -> ValueType:
    """What is known beforehand of the values at a site: declared, or where the placement asks for types."""
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
    """Names of all norms."""
    return _named(model, _is_norm)


def nonlinearities(model: nn.Module) -> list[Point]:
    """Outputs of all nonlinearities."""
    return [Point("activation.output", name, "output") for name in _named(model, _is_nonlinearity)]


def declaring(model: nn.Module) -> list[tuple[str, QuantModule]]:
    """All modules that may declare something, with their names."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, QuantModule)]


def joined(*names: str) -> str:
    """Names of modules, one below the other; the model itself is an empty name."""
    return ".".join(filter(None, names))


def linears(model: nn.Module) -> list[str]:
    """Names of all linear layers."""
    return _named(model, lambda module: isinstance(module, nn.Linear))


def own_linears(model: nn.Module) -> list[str]:
    """Names of the linear layers that share no parameter with another module."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return [
        name
        for name in linears(model)
        if all(uses[id(parameter)] == 1 for parameter in model.get_submodule(name).parameters())
    ]


def _named(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> list[str]:
    return [name for name, module in model.named_modules() if wanted(module)]


def _is_embedding(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)


def _is_table(module: nn.Module) -> bool:
    """Whether it is an embedding with weights; a table of sinusoids, as Marian's of positions, has none."""
    return _is_embedding(module) and "Sinusoidal" not in type(module).__name__


def _is_norm(module: nn.Module) -> bool:
    known = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return known or type(module).__name__.endswith(("LayerNorm", "RMSNorm", "NoNorm"))


def _is_nonlinearity(module: nn.Module) -> bool:
    """Whether it is one of torch's or transformers' nonlinearities; softmax and whole attentions are none."""
    known = type(module).__module__ in ("torch.nn.modules.activation", "transformers.activations")
    return known and "oftm" not in type(module).__name__ and not isinstance(module, nn.MultiheadAttention)


def _residual_points(model: nn.Module) -> list[Point]:
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    table = RESIDUAL_OPERANDS.get(str(model_type))
    adding = [
        (name, module, table[type(module).__name__])
        for name, module in model.named_modules()
        if table and type(module).__name__ in table
    ]
    if not adding:
        raise QuantizationError(
            f"placement.sites has residual.input or residual.sum, but where {type(model).__name__} "
            f"(model_type {model_type}) adds its residuals is not known; known are "
            f"{', '.join(RESIDUAL_OPERANDS)}: drop them from placement.sites, or add the architecture to "
            "RESIDUAL_OPERANDS in qexp/quant/insertion/sites.py"
        )
    found = [
        Point("residual.input", joined(name, operand.child), operand.side, operand.index)
        for name, _, operands in adding
        for operand in operands
    ]
    sums = [
        joined(name, child)
        for name, module, _ in adding
        for child, norm in module.named_children()
        if _is_norm(norm)
    ]
    return found + [Point("residual.sum", name, "input") for name in sums]
