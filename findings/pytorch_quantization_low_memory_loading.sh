#!/usr/bin/env bash
# transformers 4.40.2 with pytorch-quantization 2.1.3: from_pretrained of a calibrated QDQBERT with
# low_cpu_mem_usage=True drops every range. The quantizers stay on, each with the range of the batch that it
# sees, so logits of a row depend on the rows beside it. Without the option all ranges are loaded.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet)
"${pip[@]}" torch==2.13.0 numpy==1.26.4 transformers==4.40.2 accelerate==0.34.2 absl-py==2.5.1 prettytable==3.18.0 scipy==1.17.1
"${pip[@]}" --no-deps pytorch-quantization==2.1.3
FOLDER=$folder "$folder/venv/bin/python" - <<'PYTHON'
import os, sys, types, warnings
warnings.filterwarnings("ignore")
sys.modules["pytorch_quantization.cuda_ext"] = types.ModuleType("cuda_ext")  # not in the wheel, and not needed here
import torch
torch.Tensor.cuda = lambda self, *_, **__: self  # a loaded range is moved to a GPU
from absl import logging
logging.set_verbosity(logging.FATAL)
import pytorch_quantization, transformers
from pytorch_quantization.nn import TensorQuantizer
from transformers import QDQBertConfig, QDQBertForSequenceClassification as Model
transformers.logging.set_verbosity_error()

def quantizers(model):
    return [each for each in model.modules() if isinstance(each, TensorQuantizer)]

torch.manual_seed(0)
model = Model(QDQBertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50)).eval()
rows = {"input_ids": torch.randint(1, 50, (4, 12))}
for each in quantizers(model):
    each.disable_quant(), each.enable_calib()
with torch.no_grad():
    model(**rows)
for each in quantizers(model):
    each.load_calib_amax(), each.disable_calib(), each.enable_quant()
model.save_pretrained(os.environ["FOLDER"] + "/model")

print("transformers", transformers.__version__, "pytorch-quantization", pytorch_quantization.__version__)
found = {}
for low_memory in (False, True):
    loaded = Model.from_pretrained(os.environ["FOLDER"] + "/model", low_cpu_mem_usage=low_memory).eval()
    ranges = sum(each.amax is not None for each in quantizers(loaded))
    active = sum(not each._disabled and each._if_quant for each in quantizers(loaded))
    with torch.no_grad():
        together = loaded(**rows).logits
        alone = torch.cat([loaded(input_ids=rows["input_ids"][i : i + 1]).logits for i in range(4)])
    found[low_memory] = ranges
    print(f"low_cpu_mem_usage={low_memory}: expected {len(quantizers(loaded))} ranges, seen {ranges}; quantizers that are on {active}; "
          f"logits of a row alone and in a batch differ by {float((together - alone).abs().max()):.4f}")
described = found[False] == len(quantizers(model)) and found[True] == 0
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
