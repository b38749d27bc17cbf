"""Logits of integer checkpoints by transformers and compressed-tensors; run by a Python that has both.

Usage: compressed_tensors_logits.py FOLDER NAME...; reads ``rows.safetensors`` and the checkpoints ``NAME`` of
the folder, and writes ``logits.safetensors`` with a tensor for each.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification


def main(folder: Path, names: list[str]) -> None:
    rows, logits = load_file(folder / "rows.safetensors"), {}
    for name in names:
        model = AutoModelForSequenceClassification.from_pretrained(folder / name).eval()
        with torch.no_grad():
            logits[name] = model(**rows).logits
    save_file(logits, folder / "logits.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
