#!/usr/bin/env bash
# pytorch-quantization 2.1.3: a bin of the calibration histogram stops at 2**24 values of one batch (and thread), as
# torch.histc counts in float32 (torch 2.13.0, CPU). Where most of 40 million values are near zero, as softmax
# probabilities are, the 99.7 % range then ends at the few largest ones.
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
from pytorch_quantization import calib

torch.set_num_threads(1)
values = torch.full((40_000_000,), 0.0001)
values[:800_000] = 0.3  # 2 % of all
values[:80_000] = 0.9  # 0.2 % of all
values[0] = 1.0
calibrator = calib.HistogramCalibrator(8, None, False)
calibrator.collect(values)
first = float(calibrator._calib_hist[0])
seen = float(calibrator.compute_amax("percentile", percentile=99.7))
halves = calib.HistogramCalibrator(8, None, False)
for part in values.split(8_000_000):
    halves.collect(part)
expected = float(halves.compute_amax("percentile", percentile=99.7))
print("torch", torch.__version__, "pytorch-quantization", pytorch_quantization.__version__)
print(f"values in the first bin: expected 39200000, seen {first:.0f} (2**24 is {2**24})")
print(f"99.7 % range: expected {expected:.4f}, as five batches of 8 million values give; seen {seen:.4f}")
described = first == 2**24 and seen > 2 * expected > 0
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
