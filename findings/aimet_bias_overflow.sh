#!/usr/bin/env bash
# aimet-torch 2.42.0: QuantizedLinear raises the scale of its weight, without a warning, until bias / (scale of the
# weight * scale of the input) fits int32. Small weights beside a large bias all become zero: the layer no longer
# depends on its input, although the simulation keeps the bias in floating point.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet)
"${pip[@]}" torch==2.13.0 numpy==2.4.6 bokeh==3.6.3 cvxpy==1.9.3 holoviews==1.23.2 hvplot==0.12.2 jsonschema==4.26.0 \
  networkx==3.6.1 onnx==1.23.2 onnxscript==0.7.2 osqp==1.1.3 pandas==3.1.1 pillow==13.0.0 psutil==7.2.2 \
  safetensors==0.8.0 scikit-learn==1.9.1 scipy==1.17.1 tensorboard==2.21.0 tqdm==4.70.1
"${pip[@]}" --no-deps aimet-torch==2.42.0 torchvision==0.28.0
"$folder/venv/bin/python" - <<'PYTHON'
import logging, sys, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import torch
# PyPI has torchvision for CUDA; beside torch for the CPU it imports once its operators are declared.
declared = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import importlib.metadata
from aimet_torch import QuantizationSimModel

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 16)).eval()
with torch.no_grad():
    model[0].weight.mul_(1e-6)
    model[0].bias.fill_(100.0)
x = torch.randn(64, 16) * 1e-3
sim = QuantizationSimModel(model, x, quant_scheme="tf", config_file="default_config.json")
sim.compute_encodings(lambda model: model(x))
quantizer = sim.model[0].param_quantizers["weight"]
weight = model[0].weight.detach()
expected, seen = float(weight.abs().max()) / 127, float(quantizer.get_scale())
kept = int((quantizer(weight) != 0).sum())
print("aimet-torch", importlib.metadata.version("aimet-torch"))
print(f"scale of the weight: expected about {expected:.3g}, seen {seen:.3g}; weights that are not zero afterwards: {kept} of {weight.numel()}")
described = seen > 1000 * expected and kept == 0
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
