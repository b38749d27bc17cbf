#!/usr/bin/env bash
# aimet-torch 2.42.0: the weight of a LayerNorm gets an asymmetric quantizer of param_bw bits, 4 in W4A8, although the
# configuration says is_symmetric for it: a rule in code decides, symmetric only from 16 bits. Linear weights
# follow the configuration.
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
import importlib.metadata, json, tempfile
from aimet_torch import QuantizationSimModel

config = {
    "defaults": {"ops": {"is_output_quantized": "True"}, "params": {"is_quantized": "True", "is_symmetric": "True"},
                 "strict_symmetric": "False", "unsigned_symmetric": "False", "per_channel_quantization": "False"},
    "params": {"bias": {"is_quantized": "False"}, "weight": {"is_quantized": "True", "is_symmetric": "True"}},
    "op_type": {"LayerNormalization": {"params": {"weight": {"is_quantized": "True", "is_symmetric": "True"}}}},
    "supergroups": [], "model_input": {"is_input_quantized": "True"}, "model_output": {},
}
file = tempfile.NamedTemporaryFile("w", suffix=".json")
json.dump(config, file)
file.flush()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.LayerNorm(16)).eval()
x = torch.randn(64, 16)
sim = QuantizationSimModel(model, x, quant_scheme="tf", default_param_bw=4, default_output_bw=8, config_file=file.name)
sim.compute_encodings(lambda model: model(x))
linear, norm = (sim.model[index].param_quantizers["weight"] for index in (0, 1))
print("aimet-torch", importlib.metadata.version("aimet-torch"))
print(f"linear weight: {linear.bitwidth} bits, symmetric {linear.symmetric}")
print(f"norm weight: expected 4 bits, symmetric True; seen {norm.bitwidth} bits, symmetric {norm.symmetric}, "
      f"range [{float(norm.get_min()):.3f}, {float(norm.get_max()):.3f}] for weights of 1")
described = linear.symmetric and not norm.symmetric and norm.bitwidth == 4
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
