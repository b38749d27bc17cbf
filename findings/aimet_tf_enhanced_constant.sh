#!/usr/bin/env bash
# aimet-torch 2.42.0: tf_enhanced, the scheme of least noise, gives a constant tensor a range with an error although
# minimum and maximum represent it exactly: of 0.7 with 4 symmetric bits it clips to 0.66. Candidates are shares of
# the largest magnitude over 7.5 steps while the grid ends at 7, and values are taken to lie in the middle of a bin.
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
from aimet_torch.quantization.affine import QuantizeDequantize
from aimet_torch.quantization.encoding_analyzer import MinMaxEncodingAnalyzer, TfEnhancedEncodingAnalyzer

x, found = torch.full((1024,), 0.7), {}
for analyzer in (MinMaxEncodingAnalyzer, TfEnhancedEncodingAnalyzer):
    quantizer = QuantizeDequantize((), 4, True, encoding_analyzer=analyzer(()))
    with quantizer.compute_encodings():
        quantizer(x)
    found[analyzer.__name__] = float(quantizer(x)[0])
    print(f"{analyzer.__name__}: scale {float(quantizer.get_scale()):.6g}, 0.7 becomes {found[analyzer.__name__]:.6g}")
print("aimet-torch", importlib.metadata.version("aimet-torch"))
print(f"expected an error of 0, as minimum and maximum have; seen {abs(found['TfEnhancedEncodingAnalyzer'] - 0.7):.3g}")
described = abs(found["MinMaxEncodingAnalyzer"] - 0.7) < 1e-6 and abs(found["TfEnhancedEncodingAnalyzer"] - 0.7) > 0.03
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
