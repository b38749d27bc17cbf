#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: fake_quant_with_min_max_vars rounds half up, tf.quantization.quantize half away from zero
# by default, on the same range. NeurST trains with the first and shows integers by the second, so negative ties
# are shown a step lower than the model computes with.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow-cpu==2.21.0 numpy==2.4.6
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PYTHON'
import sys
import numpy as np, tensorflow as tf

x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 100.25], np.float32)
fake = tf.quantization.fake_quant_with_min_max_vars(x, -128.0, 127.0, num_bits=8).numpy()
whole = tf.quantization.quantize(x, -128.0, 127.0, tf.qint8)
print("tensorflow", tf.__version__)
print("values                      ", x)
print("fake_quant_with_min_max_vars", fake)
print("tf.quantization.quantize    ", whole.output.numpy(), "of the range", float(whole.output_min), float(whole.output_max))
apart = fake - whole.output.numpy()
print(f"expected the same integers; seen {int((apart != 0).sum())} of {len(x)} apart, all of them negative ties")
described = apart.tolist() == [1, 1, 1, 0, 0, 0, 0]
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
