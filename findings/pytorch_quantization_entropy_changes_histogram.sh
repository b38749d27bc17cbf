#!/usr/bin/env bash
# pytorch-quantization 2.1.3, HistogramCalibrator(torch_hist=False): compute_amax("entropy") overwrites the first bin
# with the second, in the calibrator's own counts. A percentile that is asked for afterwards is another one: zeros
# no longer count. Of values of which 90 % are zero, the 95 % range doubles.
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

values = torch.cat([torch.zeros(18_000), torch.linspace(0, 1, 2_000)])
calibrator = calib.HistogramCalibrator(8, None, False, torch_hist=False)
calibrator.collect(values)
counted = int(calibrator._calib_hist[0])
before = float(calibrator.compute_amax("percentile", percentile=95.0))
calibrator.compute_amax("entropy", stride=64)
after = float(calibrator.compute_amax("percentile", percentile=95.0))
print("pytorch-quantization", pytorch_quantization.__version__)
print(f"first bin: expected {counted}, seen {int(calibrator._calib_hist[0])}")
print(f"95 % range after the entropy: expected {before:.4f}, as before, seen {after:.4f}")
described = counted > 18_000 and int(calibrator._calib_hist[0]) < 10 and after > 1.5 * before
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
