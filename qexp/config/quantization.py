"""Sections for bit-widths, grids and sites."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from qexp.config.base import FLOAT_BITS, Bits, Section, check_bit_width, is_none, refuse_unused
from qexp.config.number_formats import NumberFormat, check_formats
from qexp.naming import quant_name, short_format

GroupSize = Literal[16, 32, 64, 128, 256]
"""Sizes of blocks that kernels of 4-bit weights take: powers of two."""


class WeightScheme(Section):
    """Granularity and symmetry of weight grids."""

    granularity: Literal["per_tensor", "per_channel"] = "per_channel"
    """One range for the tensor, or one for each output channel."""
    symmetric: bool = True
    """Zero point 0 and a signed grid; false is an unsigned grid with a zero point."""
    narrow: bool = True
    """Whether a symmetric grid omits its lowest integer, as [-127, 127] does at 8 bits."""
    range: Literal["magnitude", "full"] = "magnitude"
    """Scale of a symmetric grid: the largest magnitude over the highest integer, or, of a grid with its
    lowest integer, the smallest scale that covers both ends (AIMET)."""
    group_size: GroupSize | None = Field(default=None, exclude_if=is_none)
    """Neighbouring inputs of an output channel that share a range, a block; null is the whole channel."""

    @model_validator(mode="after")
    def _blocks_lie_in_channels(self) -> Self:
        if self.group_size is not None and self.granularity != "per_channel":
            raise ValueError(
                f"group_size={self.group_size} with granularity={self.granularity}: blocks lie within output "
                "channels; use granularity=per_channel, or group_size=null"
            )
        return self

    @model_validator(mode="after")
    def _full_range_has_its_lowest(self) -> Self:
        if not self.symmetric:
            refuse_unused(self, ["narrow", "range"], "symmetric=false", "symmetric=true")
        if self.range == "full" and self.narrow:
            raise ValueError(
                "range=full with narrow=true: a narrow grid has no lowest integer; use narrow=false"
            )
        return self


class ActivationScheme(Section):
    """Granularity and symmetry of activation grids."""

    granularity: Literal["per_tensor", "per_embedding_group"] = "per_tensor"
    """One range for the tensor; or one for each group of embedding dimensions, where the last axis is the
    embedding's, and one for the tensor elsewhere."""
    dynamic: Literal["tensor", "token"] | None = Field(default=None, exclude_if=is_none)
    """Whether ranges are found at run time, without calibration: one for the tensor, of all rows and padding
    of a batch (ONNX ``DynamicQuantizeLinear``); or one for each token; null is fixed ranges."""
    symmetric: bool = False
    """Zero point 0 and a signed grid; false is an unsigned grid with a zero point."""
    narrow: bool = False
    """Whether a symmetric grid omits its lowest integer."""
    groups: int = Field(default=6, ge=2)
    """Groups of embedding dimensions, of ``per_embedding_group``."""
    permute: bool = True
    """Whether groups hold dimensions of similar range, the same ones throughout a layer, not neighbours."""

    @field_validator("granularity", mode="before")
    @classmethod
    def _tokens_are_dynamic(cls, granularity: Any) -> Any:
        if granularity == "per_token":
            raise ValueError("ranges of tokens are found at run time; use scheme.activation.dynamic=token")
        return granularity

    @model_validator(mode="after")
    def _groups_are_of_dimensions(self) -> Self:
        if self.dynamic is not None:
            because = f"dynamic={self.dynamic}"
            refuse_unused(self, ["granularity"], because, "scheme.activation.dynamic=null")
        if self.granularity != "per_embedding_group":
            because = f"granularity={self.granularity}"
            instead = "scheme.activation.granularity=per_embedding_group"
            refuse_unused(self, ["groups", "permute"], because, instead)
        if not self.symmetric:
            instead = "scheme.activation.symmetric=true"
            refuse_unused(self, ["narrow"], "symmetric=false", instead)
        return self


class Scheme(Section):
    """Granularity and symmetry of all grids."""

    weight: WeightScheme = WeightScheme()
    """Form of the weight grids."""
    embedding: WeightScheme | None = None
    """Form of the grids of embedding tables; null is ``weight``."""
    layernorm: WeightScheme | None = None
    """Form of the grids of LayerNorm weights; null, and any other norm's, is ``weight`` with one range."""
    activation: ActivationScheme = ActivationScheme()
    """Form of the activation grids."""
    clip_gelu: float | None = Field(default=None, gt=0)
    """Largest magnitude in the range of what a nonlinearity gives; null has no such limit."""

    @model_validator(mode="after")
    def _norms_have_no_blocks(self) -> Self:
        if self.layernorm is not None and self.layernorm.group_size is not None:
            raise ValueError(
                f"layernorm.group_size={self.layernorm.group_size}: the weight of a LayerNorm is a vector, "
                "and blocks are of matrices; use layernorm.group_size=null"
            )
        return self


class Override(Section):
    """Settings that differ at some sites; null keeps the general setting."""

    weight_bits: Bits | None = None
    """Bits of their weights; 32 leaves them in floating point."""
    activation_bits: Bits | None = None
    """Bits of their activations; 32 leaves them in floating point."""
    weight: WeightScheme | None = None
    """Form of their weight grids."""
    activation: ActivationScheme | None = None
    """Form of their activation grids."""

    _known_widths = field_validator("weight_bits", "activation_bits")(check_bit_width)


class Quant(Section):
    """Bit-widths of weights and activations, and overrides for some sites."""

    weight_bits: Bits = 8
    """Bits of a weight, 2 to 16; 32 leaves weights in floating point."""
    activation_bits: Bits = 8
    """Bits of an activation, 2 to 16; 32 leaves activations in floating point."""
    weight_format: NumberFormat | None = Field(default=None, exclude_if=is_none)
    """Format of weights that are floats of ``weight_bits``; null is integers."""
    activation_format: NumberFormat | None = Field(default=None, exclude_if=is_none)
    """Format of activations that are floats of ``activation_bits``; null is integers."""
    embedding_bits: Bits | None = None
    """Bits of tables of embeddings; null is ``weight_bits``."""
    overrides: dict[str, Override] = Field(default_factory=dict)
    """By a glob over sites, such as ``*.pooler.*``: what is different there. A site is called by its module,
    or by module and kind as in ``*.pooler.dense:linear.input``; ``@first`` and ``@last`` are the sites of the
    first and the last layer, ``@ffn_input``, ``@ffn_output`` and ``@ffn_sum`` those around each feed-forward
    part. Of several that match, a later one wins, field by field."""

    label: str = Field(default="mixed", pattern=r"^[a-z0-9]+$")
    """What tables call the overrides, in ``w8a8-mixed``; small letters and digits."""

    _known_widths = field_validator("weight_bits", "activation_bits", "embedding_bits")(check_bit_width)

    @model_validator(mode="after")
    def _formats_have_their_bits(self) -> Self:
        others = [
            ("embedding_bits", None if self.embedding_bits == self.weight_bits else self.embedding_bits)
        ]
        for glob, each in self.overrides.items():
            others.append((f"overrides[{glob}].weight_bits", each.weight_bits))
            others.append((f"overrides[{glob}].activation_bits", each.activation_bits))
        weight, activation = self.weight_format, self.activation_format
        widths = {"weight": (self.weight_bits, weight), "activation": (self.activation_bits, activation)}
        check_formats(widths, others)
        return self

    @model_validator(mode="after")
    def _label_is_of_overrides(self) -> Self:
        if not self.overrides:
            refuse_unused(self, ["label"], "no overrides", "some: quant.overrides={GLOB:{…}}")
        return self

    @field_validator("overrides", mode="before")
    @classmethod
    def _none(cls, overrides: Any) -> Any:
        return {} if overrides is None else overrides

    @property
    def name(self) -> str:
        """``fp32``, or a short form such as ``w4a8``, or ``w4a8-mixed`` with overrides."""
        if not self.enabled:
            return "fp32"
        differs = self.embedding_bits not in (None, self.weight_bits)
        embedding = f"e{self.embedding_bits}" if differs else ""
        overrides = f"-{self.label}" if self.overrides else ""
        weight = short_format(self.weight_bits, self.weight_format)
        activation = short_format(self.activation_bits, self.activation_format)
        return f"{quant_name(weight, activation)}{embedding}{overrides}"

    @property
    def formats(self) -> tuple[NumberFormat, ...]:
        """Formats of floats, each once, that of weights first."""
        return tuple({each: None for each in (self.weight_format, self.activation_format) if each})

    @property
    def quantizes_activations(self) -> bool:
        """Whether any activation is quantized."""
        widths = (self.activation_bits, *(each.activation_bits for each in self.overrides.values()))
        return any(bits is not None and bits < FLOAT_BITS for bits in widths)

    @property
    def quantizes_weights(self) -> bool:
        """Whether any weight is quantized."""
        own = (self.weight_bits, self.embedding_bits)
        widths = (*own, *(each.weight_bits for each in self.overrides.values()))
        return any(bits is not None and bits < FLOAT_BITS for bits in widths)

    @property
    def enabled(self) -> bool:
        """Whether anything is quantized."""
        return self.quantizes_activations or self.quantizes_weights


SiteKind = Literal[
    "linear.weight",
    "linear.input",
    "linear.output",
    "embedding.weight",
    "embedding.output",
    "layernorm.weight",
    "matmul.query",
    "matmul.key",
    "matmul.probs",
    "matmul.value",
    "attention.scores",
    "attention.masked_scores",
    "attention.context",
    "attention.output",
    "activation.output",
    "layernorm.input",
    "layernorm.output",
    "residual.input",
    "residual.sum",
    "declared.weight",
    "declared.activation",
]
GradientRule = Literal["range", "grid", "all"]
"""Values whose gradient passes a quantizer: those inside the range, all that round into the grid, or all."""
ValueType = Literal["act", "relu", "softmax"]
"""Kind of values: unrestricted, nonnegative, or between 0 and 1."""


class Placement(Section):
    """Sites that get a quantizer."""

    name: str
    """Short name of the list, for tables."""
    sites: tuple[SiteKind, ...] = Field(min_length=1)
    """Kinds of sites that are quantized."""
    typed: bool = False
    """Whether probabilities have the range [0, 1] and outputs of ReLU one from 0, both on unsigned grids."""
    include: tuple[str, ...] = ()
    """Globs over single sites that are quantized, too, such as ``*.pooler.dense:linear.input``."""
    exclude: tuple[str, ...] = ()
    """Globs over module names whose sites stay in floating point, such as ``*classifier*``."""
    fuse_relu: bool = False
    """Whether a linear layer and the ReLU that reads it are one operation, of which ReLU's output is
    quantized."""
    fuse_qkv: bool = False
    """Whether the projections to queries, keys and values are one matrix product: their outputs have one
    range, the smallest that covers theirs; weights that read one tensor have one, too, if per tensor."""
    mask_value: float | None = Field(default=None, lt=0)
    """What is added to the scores of padding, such as -6; null is the lowest float32."""
    softmax_max: Annotated[float, Field(gt=0, le=1)] | Literal["below_one"] = 1.0
    """Upper end of the fixed range of probabilities, if ``typed``; below_one is 1 - 2**-bits, whose step is a
    power of two."""

    @model_validator(mode="after")
    def _masks_lie_on_a_grid(self) -> Self:
        if "attention.masked_scores" in self.sites and self.mask_value is None:
            raise ValueError(
                "sites has attention.masked_scores, but mask_value is null: no grid holds scores beside the "
                "lowest float32; set placement.mask_value=-6, or drop the site"
            )
        if not self.typed:
            refuse_unused(self, ["softmax_max"], "typed=false", "placement.typed=true")
        return self

    def largest_probability(self, bits: int) -> float:
        """Return ``softmax_max`` as a number, for a grid of ``bits``."""
        return 1 - 2.0**-bits if self.softmax_max == "below_one" else self.softmax_max


class QuantizationConfig(Section):
    """All settings that turn a float model into a quantized one: sites, bit-widths and grids."""

    placement: Placement
    quant: Quant = Quant()
    scheme: Scheme = Scheme()

    @property
    def activation_schemes(self) -> tuple[ActivationScheme, ...]:
        """Forms of activation grids: the general one, and those of overrides."""
        others = (each.activation for each in self.quant.overrides.values())
        return (self.scheme.activation, *(each for each in others if each is not None))

    @property
    def groups_dimensions(self) -> bool:
        """Whether any activation has a range for each group of embedding dimensions."""
        return any(each.granularity == "per_embedding_group" for each in self.activation_schemes)

    @property
    def observes_nothing(self) -> bool:
        """Whether activations are quantized, and all ranges of theirs are found at run time."""
        if self.quant.activation_format is not None:
            return self.quant.activation_format == "mxfp8"
        return self.quant.quantizes_activations and all(each.dynamic for each in self.activation_schemes)

    @property
    def depends_on_batch(self) -> bool:
        """Whether a row's result may depend on the other rows, and the padding, of its batch."""
        dynamic = any(each.dynamic == "tensor" for each in self.activation_schemes)
        return self.quant.quantizes_activations and dynamic
