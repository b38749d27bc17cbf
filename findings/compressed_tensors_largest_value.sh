#!/usr/bin/env bash
# compressed-tensors 0.20.1: of a symmetric grid the scale is the largest magnitude over half of all steps, 7.5 at 4
# bits and 127.5 at 8. The value that sets a range therefore falls between two levels and is never kept: a positive
# one is stored as 7 and comes back as 7 / 7.5, 6.7 % too small; a negative one as -7 or -8, 6.7 % too small or too
# large, by how float32 rounds the quotient. (At 8 bits it is 0.4 %.) The mean squared error of normal values is
# smaller than with the scales of max / 7 or max / 127 that TensorRT and ONNX Runtime's tools take. But integers that
# are compared with theirs differ, and "symmetric, 4 bits" alone does not say which of the two a checkpoint has.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 compressed-tensors==0.20.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import compressed_tensors
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams

print("compressed-tensors", compressed_tensors.__version__, "torch", torch.__version__)
described = True
torch.manual_seed(0)
rows = torch.randn(1000, 384)
for bits in (4, 8):
    arguments = QuantizationArgs(num_bits=bits, symmetric=True, strategy="channel")
    ends = rows.aminmax(dim=1, keepdim=True)
    scale, zero = calculate_qparams(ends.min, ends.max, arguments)
    integers = quantize(rows, scale, zero, arguments)
    largest = rows.abs().argmax(1, keepdim=True)
    kept = fake_quantize(rows, scale, zero, arguments).gather(1, largest) / rows.gather(1, largest)
    stored, top = integers.gather(1, largest).flatten().int(), 2 ** (bits - 1) - 1
    by_level = {level: int((stored == level).sum()) for level in (top, -top, -top - 1)}
    positive = int((rows.gather(1, largest) > 0).sum())
    plain_scale = rows.abs().amax(1, keepdim=True) / top
    plain = (rows / plain_scale).round() * plain_scale
    errors = [float((each - rows).square().mean()) for each in (fake_quantize(rows, scale, zero, arguments), plain)]
    print(
        f"{bits} bits: scale = largest / {float((rows.abs().amax(1) / scale.flatten()).mean()):.1f}; the largest of 1000 "
        f"rows, {positive} of them positive, is stored as {by_level} (level: rows) and comes back as {float(kept.min()):.4f} "
        f"to {float(kept.max()):.4f} of itself; mean squared error {errors[0]:.3e}, with largest / {top} {errors[1]:.3e}"
    )
    off = (kept - 1).abs()
    described &= by_level[top] == positive and sum(by_level.values()) == 1000 and errors[0] < errors[1]
    described &= bool((off - 0.5 / (top + 0.5)).abs().max() < 1e-5) and min(by_level.values()) > 0
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
