#!/usr/bin/env bash
# pytorch-quantization 2.1.3: after the first load_calib_amax, the range of a quantizer and what its max calibrator
# remembers are one tensor. A later batch widens the range without a load; a range that is clipped afterwards
# lowers what the calibrator remembers. Histogram calibrators copy.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==1.26.4 absl-py==2.5.1 prettytable==3.18.0 pyyaml==6.0.4 scipy==1.17.1
"$folder/venv/bin/pip" install --quiet --no-deps pytorch-quantization==2.1.3
"$folder/venv/bin/python" - <<'PYTHON'
import sys, types, warnings
warnings.filterwarnings("ignore")
sys.modules["pytorch_quantization.cuda_ext"] = types.ModuleType("cuda_ext")  # not in the wheel, and not needed here
import torch
from absl import logging
logging.set_verbosity(logging.FATAL)
import pytorch_quantization
from pytorch_quantization.nn import TensorQuantizer
from pytorch_quantization.tensor_quant import QuantDescriptor

def run(calib_method, **options):
    quantizer = TensorQuantizer(QuantDescriptor(num_bits=8, calib_method=calib_method))
    quantizer.disable_quant(), quantizer.enable_calib()
    quantizer(torch.linspace(-1, 1, 4096))
    quantizer.load_calib_amax(**options)
    loaded = float(quantizer.amax)
    quantizer(torch.linspace(-5, 5, 4096))
    later = float(quantizer.amax)  # nothing was loaded since
    with torch.no_grad():
        quantizer._amax.clamp_(max=0.5)
    return loaded, later, float(quantizer._calibrator.compute_amax(**options))

print("pytorch-quantization", pytorch_quantization.__version__)
loaded, later, remembered = run("max")
other, other_later, other_remembered = run("histogram", method="percentile", percentile=99.0)
print(f"max: range {loaded:.3f}; after one more batch expected {loaded:.3f}, seen {later:.3f}; calibrator after the range was clipped to 0.5: expected 5, seen {remembered:.3f}")
print(f"histogram: range {other:.3f}; after one more batch {other_later:.3f}; calibrator after the range was clipped to 0.5: {other_remembered:.3f}")
described = later == 5.0 and remembered == 0.5 and other_later == other
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
