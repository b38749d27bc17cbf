"""Settings that do not go with grids of floats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qexp.config.calibration import Calibrator
from qexp.config.deploy import AnyDeploy, Machine
from qexp.config.number_formats import IN_BLOCKS
from qexp.config.quantization import QuantizationConfig, WeightScheme
from qexp.config.refinement import Refinement
from qexp.config.training import AnyMethod, Qat

if TYPE_CHECKING:
    from qexp.config.experiment import Experiment
    from qexp.config.number_formats import NumberFormat

OF_INTEGERS = ("sqnr", "entropy", "imported")
"""Calibrators that choose ranges of integers."""


def refuse_for_floats(experiment: Experiment) -> None:
    """Reject settings that grids of floats cannot have.

    Raises:
        ValueError: There is such a setting.
    """
    quant_config, quant = experiment.quant_config, experiment.quant
    if not quant.formats:
        return
    name = f"quant={quant.name}"
    _refuse_schemes(quant_config, name)
    _refuse_calibrator(quant.formats, experiment.calibrator, name)
    _refuse_algorithms(experiment.refinement, experiment.method, name)
    _refuse_export(quant.formats, experiment.deploy, experiment.machine, name)


def _refuse_schemes(quant_config: QuantizationConfig, name: str) -> None:
    quant = quant_config.quant
    if quant.weight_format is not None:
        for scheme in _weight_schemes(quant_config):
            _refuse_weight_scheme(scheme, quant.weight_format, name)
    if quant.activation_format is not None:
        for each in quant_config.activation_schemes:
            if each.dynamic is not None or each.granularity != "per_tensor":
                raise ValueError(
                    f"scheme.activation.dynamic={each.dynamic}, granularity={each.granularity} with {name}: "
                    "activations in floats have one fixed scale, or one for each block; use "
                    "scheme.activation.dynamic=null and granularity=per_tensor"
                )


def _refuse_algorithms(refinement: Refinement, method: AnyMethod, name: str) -> None:
    if refinement.rounding != "nearest":
        raise ValueError(
            f"refinement.rounding={refinement.rounding} with {name}: it chooses between integers; use "
            "refinement.rounding=nearest"
        )
    if isinstance(method, Qat) and (method.gradient == "grid" or method.zero_points == "learned"):
        raise ValueError(
            f"method.gradient={method.gradient}, zero_points={method.zero_points} with {name}: floats have "
            "no half steps at the ends of their range and no zero point; use method.gradient=range and "
            "method.zero_points=fixed"
        )


def _refuse_export(formats: Iterable[NumberFormat], deploy: AnyDeploy, machine: Machine, name: str) -> None:
    in_blocks = [each for each in formats if each in IN_BLOCKS]
    if in_blocks and deploy.kind != "none":
        raise ValueError(
            f"deploy={deploy.kind} with {name}: {in_blocks[0]} is simulated in torch, and "
            "no engine here takes it; use deploy=none, or quant=fp8"
        )
    if machine.compile:
        raise ValueError(
            f"machine.compile=true with {name}: grids of floats are not compiled; use machine.compile=false"
        )


def _weight_schemes(quant_config: QuantizationConfig) -> Iterator[WeightScheme]:
    scheme = quant_config.scheme
    others = (each.weight for each in quant_config.quant.overrides.values())
    yield from (each for each in (scheme.weight, scheme.embedding, scheme.layernorm, *others) if each)


def _refuse_weight_scheme(scheme: WeightScheme, number_format: NumberFormat, name: str) -> None:
    if not scheme.symmetric or scheme.range != "magnitude" or scheme.group_size is not None:
        raise ValueError(
            f"symmetric={scheme.symmetric}, range={scheme.range}, group_size={scheme.group_size} of "
            f"weights with {name}: floats have no zero point, and their format says which share a scale; "
            "use symmetric=true, range=magnitude and group_size=null"
        )
    if number_format in IN_BLOCKS and scheme.granularity != "per_channel":
        raise ValueError(
            f"granularity={scheme.granularity} with {name}: scales of {number_format} are those of its "
            "blocks; leave it at per_channel, or use quant=fp8"
        )


def _refuse_calibrator(formats: Iterable[NumberFormat], calibrator: Calibrator, name: str) -> None:
    kind = getattr(calibrator, "kind", None)
    if kind in OF_INTEGERS or calibrator.weights == "sqnr":
        raise ValueError(
            f"calibrator={kind}, weights={calibrator.weights} with {name}: it chooses ranges of integers; "
            "use calibrator=max, percentile or mse"
        )
    if "nvfp4" in formats and "mse" in (kind, calibrator.weights):
        raise ValueError(
            f"calibrator={kind}, weights={calibrator.weights} with {name}: the scale of a tensor is that of "
            "its largest value, and its blocks have their own; use calibrator=max"
        )
