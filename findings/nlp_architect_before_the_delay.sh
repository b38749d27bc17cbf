#!/usr/bin/env bash
# NLP Architect 0.5.4 on torch 2.13.0, its QuantizedLinear in mode ema: evaluated before its start_step (200 for the
# classifier of Q8BERT), the layer divides by a threshold of 0 that nothing has set, and gives exactly 0 for every
# row, without its bias. In training, a batch of zeros, such as a ReLU may give, comes out as NaN.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps nlp-architect==0.5.4
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata, sys
import torch
from nlp_architect.nn.torch.quantization import QuantizedLinear

torch.manual_seed(0)
x = torch.randn(8, 16)

def layer(start_step):
    made = QuantizedLinear(16, 2, mode="ema", requantize_output=False, start_step=start_step)
    made.eval()
    made.train()  # returns None
    return made

print("nlp-architect", importlib.metadata.version("nlp-architect"), "torch", torch.__version__)
delayed = layer(200)
for _ in range(100):
    expected = delayed(x)
delayed.eval()
seen = delayed(x)
print(f"evaluated after 100 of 200 steps: expected {expected[0].tolist()}, as in training; seen {seen[0].tolist()}")
zeros = layer(0)(torch.zeros(8, 16))
print(f"zeros in training: expected the bias, seen {zeros[0].tolist()}")
wrong = bool(seen.isnan().all()) or bool((seen == 0).all())
described = bool(expected.isfinite().all()) and wrong and bool(zeros.isnan().all())
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
