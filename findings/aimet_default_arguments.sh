#!/usr/bin/env bash
# aimet-torch 2.42.0: QuantizationSimModel without a quant_scheme and a configuration does not what its docstring says
# of the first, tf_enhanced: ranges are those of tf, minimum and maximum; and weights get a range for each channel.
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
import importlib.metadata, inspect
from aimet_torch import QuantizationSimModel

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU()).eval()
x = torch.randn(64, 16)
sim = QuantizationSimModel(model, x)
sim.compute_encodings(lambda model: model(x))
quantizer = sim.model[0].param_quantizers["weight"]
documented = [line.strip() for line in (inspect.getdoc(QuantizationSimModel) + (inspect.getdoc(QuantizationSimModel.__init__) or "")).splitlines() if "quant_scheme" in line or "tf_enhanced" in line]
largest = model[0].weight.detach().abs().amax(1, keepdim=True)
low, high = model[0].weight.detach().amin(1, keepdim=True), model[0].weight.detach().amax(1, keepdim=True)
covering = torch.maximum(high / 127, -low / 128)
print("aimet-torch", importlib.metadata.version("aimet-torch"))
print("docstring:", *documented, sep="\n  ")
print(f"expected scales of tf_enhanced; seen {type(quantizer.encoding_analyzer).__name__}, shape {tuple(quantizer.shape)}, "
      f"at most {float((quantizer.get_scale() / covering - 1).abs().max()):.1g} from max(max / 127, -min / 128) of each row")
described = (any("tf_enhanced" in line for line in documented) and tuple(quantizer.shape) == (8, 1)
             and torch.allclose(quantizer.get_scale().detach(), covering, rtol=1e-4))
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
