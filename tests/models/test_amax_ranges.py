"""``_amax`` of pytorch-quantization: names of QDQBERT and FasterTransformer, and the package's numbers."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qexp.config import ActivationScheme, ImportedCalibrator, Quant, Scheme
from qexp.errors import QuantizationError
from qexp.models.amax_ranges import amax_ranges
from qexp.quant.calibration.imported import write_imported
from qexp.quant.insertion.imported_ranges import import_ranges
from qexp.quant.insertion.weights import original
from tests.support.tiny_models import QDQBERT, batch, build, calibrated

LAYER = "bert.encoder.layer.0"


@pytest.fixture(scope="module")
def oracle() -> Any:
    """The package, with its modules ``calib`` and ``tensor_quant``."""
    extension = "pytorch_quantization.cuda_ext"  # not in the wheel; only products on a GPU call it
    sys.modules.setdefault(extension, types.ModuleType(extension))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports what newer versions of torch advise against
            import pytorch_quantization
            from pytorch_quantization import calib, tensor_quant  # noqa: F401
    except ImportError as error:
        pytest.skip(
            f"no second opinion: {error}; pip install --no-deps pytorch-quantization==2.1.3 and "
            "pip install absl-py prettytable"
        )
    return pytorch_quantization


def amax_of(oracle: Any, values: torch.Tensor) -> torch.Tensor:
    """The range of each row that the package's own calibrator finds."""
    calibrator = oracle.calib.MaxCalibrator(8, 0, unsigned=False)
    calibrator.collect(values)
    amax: torch.Tensor = calibrator.compute_amax()
    return amax


def state_dict(oracle: Any, quantization: Any) -> dict[str, torch.Tensor]:
    """``_amax`` under QDQBERT's names, of what a model computes on the batch."""
    model = quantization.model
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            weight = model.get_submodule(name).parametrizations["weight"].original
            seen[f"{name}._weight_quantizer._amax"] = amax_of(oracle, weight.detach())
    statistics = quantization.statistics()
    names = {
        "linear.input": "{}._input_quantizer", "matmul.query": "{}.matmul_q_input_quantizer",
        "matmul.key": "{}.matmul_k_input_quantizer", "matmul.value": "{}.matmul_v_input_quantizer",
        "matmul.probs": "{}.matmul_a_input_quantizer", "residual.input": "{}.add_residual_input_quantizer",
    }  # fmt: skip
    for site in quantization.sites:
        if site.is_weight:
            continue
        each = statistics[site.quantizer]
        name = names[site.kind].format(site.module)
        if site.module.endswith(".dropout"):
            name = f"{site.module.removesuffix('.dropout')}.add_local_input_quantizer"
        seen[f"{name}._amax"] = torch.tensor(max(-min(each.lows), max(each.highs)))
    return {name: value.float().contiguous() for name, value in seen.items()}


def test_a_state_dict_of_qdqbert_sets_every_quantizer_to_amax_over_127(oracle: Any, tmp_path: Path) -> None:
    scheme = Scheme(activation=ActivationScheme(symmetric=True))
    source = calibrated(build("bert"), Quant(), scheme, QDQBERT)
    amax = state_dict(oracle, source)
    save_file(amax | {"bert.pooler.dense.bias": torch.zeros(32)}, tmp_path / "model.safetensors")
    ranges = amax_ranges(tmp_path / "model.safetensors")
    assert len(ranges) == len(amax)
    assert all(each.sites for each in ranges)
    write_imported(tmp_path / "ranges.json", "model", ranges)
    target = calibrated(build("bert", seed=1), Quant(), scheme, QDQBERT)
    calibrator = ImportedCalibrator.model_validate(
        {"kind": "imported", "path": str(tmp_path / "ranges.json")}
    )
    account = import_ranges(target, calibrator)
    assert set(account["imported"]) == set(target.quantizers)
    for name, quantizer in target.quantizers.items():
        expected = amax[account["imported"][name]].flatten() / 127
        torch.testing.assert_close(quantizer.scale.flatten(), expected, rtol=2e-7, atol=0)
        assert not quantizer.zero_point.any()


def test_the_imported_quantizer_computes_what_the_package_computes(oracle: Any, tmp_path: Path) -> None:
    scheme = Scheme(activation=ActivationScheme(symmetric=True))
    source = calibrated(build("bert"), Quant(), scheme, QDQBERT)
    amax = state_dict(oracle, source)
    save_file(amax, tmp_path / "model.safetensors")
    write_imported(tmp_path / "ranges.json", "model", amax_ranges(tmp_path / "model.safetensors"))
    calibrator = ImportedCalibrator.model_validate(
        {"kind": "imported", "path": str(tmp_path / "ranges.json")}
    )
    import_ranges(source, calibrator)
    source.freeze()
    for site in source.sites:
        if site.is_weight and site.kind == "linear.weight":
            weight = original(source.model, site).detach()
            bound = amax[f"{site.module}._weight_quantizer._amax"]
            theirs = oracle.tensor_quant.tensor_quant(weight, bound, 8, False, True)
            theirs = theirs[0] / theirs[1]
            ours = source.model.get_submodule(site.module).weight
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.isfinite(source.model(**batch()).logits).all()


def test_names_of_fastertransformer(tmp_path: Path) -> None:
    names = {
        f"{LAYER}.attention.self.query._aftergemm_quantizer": f"{LAYER}.attention.self.query:linear.output",
        f"{LAYER}.attention.self.softmax_input_quantizer": f"{LAYER}.attention.self:attention.scores",
        f"{LAYER}.output.add_local_input_quantizer": f"{LAYER}.output.dropout:residual.input",
        f"{LAYER}.output.special_quantizer": None,
    }
    save_file({f"{name}._amax": torch.ones(()) for name in names}, tmp_path / "m.safetensors")
    found = {each.name.removesuffix("._amax"): each.sites for each in amax_ranges(tmp_path / "m.safetensors")}
    assert found == {name: () if site is None else (site,) for name, site in names.items()}


@pytest.mark.parametrize(
    "tensors",
    [{}, {"a.weight": torch.ones(1)}, {"a._input_quantizer._amax": torch.tensor(0.0)},
     {"a._input_quantizer._amax": torch.tensor(float("nan"))}],
)  # fmt: skip
def test_files_without_a_range_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(QuantizationError):
        amax_ranges(tmp_path / "m.safetensors")
