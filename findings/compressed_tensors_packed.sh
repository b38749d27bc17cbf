#!/usr/bin/env bash
# compressed-tensors 0.20.1 with transformers 5.24.0: checkpoints in pack-quantized form that the package itself
# has written cannot be loaded with from_pretrained, if they hold a packed table (the initialization of an
# embedding reads its weight, which is not there) or zero points of channels (packed in the file, while the
# loading model expects their unpacked shape). Linear layers with symmetric channels load.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 compressed-tensors==0.20.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys, tempfile, warnings
warnings.filterwarnings("ignore")
import compressed_tensors, torch, transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

transformers.logging.set_verbosity_error()
sizes = dict(vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)

def written_and_loaded(target, symmetric):
    """Compress a model with the package itself, save it, and load it again."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes)).eval()
    weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "channel"}
    group = {"targets": [target], "weights": weights, "format": "pack-quantized"}
    section = QuantizationConfig(config_groups={"group_0": group}, quantization_status="frozen")
    apply_quantization_config(model, section, show_progress=False)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            low, high = module.weight.data.amin(1, keepdim=True), module.weight.data.amax(1, keepdim=True)
            scale = (torch.maximum(-low, high) / 7 if symmetric else (high - low) / 15).clamp(min=1e-6)
            module.weight_scale.data.copy_(scale)
            if not symmetric:
                module.weight_zero_point.data.copy_(torch.round(-8 - low / scale).clamp(-8, 7))
    compressor = ModelCompressor.from_pretrained_model(model, "pack-quantized")
    compressor.compress_model(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        compressor.update_config(folder)
        try:
            AutoModelForSequenceClassification.from_pretrained(folder)
        except (AttributeError, RuntimeError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "loaded"

print("compressed-tensors", compressed_tensors.__version__, "transformers", transformers.__version__)
seen = {
    "linear layers, symmetric": written_and_loaded("Linear", True),
    "tables, symmetric": written_and_loaded("Embedding", True),
    "linear layers, asymmetric": written_and_loaded("Linear", False),
}
for what, result in seen.items():
    print(f"{what}: expected: loaded; seen: {result}")
described = [result == "loaded" for result in seen.values()] == [True, False, False]
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
