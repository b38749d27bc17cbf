"""Searches of a translation: engines of qexp's two files, and CTranslate2 on the same weights.

    python -m benchmarks.translation [--model transformer_tiny] [--rows 1,8,32] [--beams 1,5] [--length 14]
        [--new 16] [--rounds 7] [--threads 2] [--no-peers] [--json FILE]

Weights are random, and the end of a text is forbidden, so that every search makes the same number of tokens.
Sources have half to one and a half times ``--length`` tokens. INT8 quantizes weights, inputs of linear
layers, tables and the four inputs of attention; ``cache 8`` keeps keys and values as integers. Ratios are
to ONNX Runtime in FP32; "equal" is the share of tokens that are those of torch in FP32, which says whether
FP32 is the same model, and little of INT8 with random weights. CTranslate2: pip install ctranslate2.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Reading, alternate, show_rows, version, write
from benchmarks.options import add_peers, settings
from benchmarks.peers.ctranslate2 import CTranslate2
from qexp.config import BeamSearch, FromScratch, MaxCalibrator, Placement, QuantizationConfig
from qexp.context import set_threads
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export_translation import DECODER, ENCODER, export_translation
from qexp.deploy.onnx.integer_cache import store_integers
from qexp.deploy.runtimes import load
from qexp.quant.insertion.insert import insert
from qexp.tasks.engine_search import load_translator
from qexp.tasks.translation import Vocabulary, from_scratch, searcher

SIZES = {
    "transformer_tiny": FromScratch(vocabulary=6000, layers=4, width=128, heads=4, inner=256, dropout=0.0),
    "transformer_base": FromScratch(vocabulary=37000, layers=6, width=512, heads=8, inner=2048, dropout=0.0),
}
"""As in ``conf/model``, but for dropout."""
SITES = (
    "linear.weight", "linear.input", "embedding.weight", "matmul.query", "matmul.key", "matmul.probs",
    "matmul.value",
)  # fmt: skip
FORBIDDEN = -1e4
"""Added to the logit of a token that no translation shall have."""
BASELINE = "onnxruntime fp32"

Search = Callable[[dict[str, torch.Tensor], int, int], Callable[[], torch.Tensor]]
"""Function from a batch, beams and new tokens to a call that translates it."""


def random_model(name: str) -> Any:
    """A translator as Marian's checkpoints are: its last token is padding, and starts the decoder."""
    words = SIZES[name].vocabulary
    model = from_scratch(SIZES[name], Vocabulary(words + 1, padding=words, start=words, end=0), seed=0).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        model.model.shared.weight[words] = 0
        model.final_logits_bias[0, [0, words]] = FORBIDDEN
    return model


def sentences(model: Any, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Random tokens [rows, longest] with padding behind, and their mask; each row ends with the end token."""
    generator = torch.Generator().manual_seed(rows)
    lengths = torch.randint(length // 2, length * 3 // 2 + 1, (rows, 1), generator=generator)
    mask = (torch.arange(int(lengths.max())) < lengths).long()
    ids = torch.randint(1, model.config.pad_token_id, mask.shape, generator=generator)
    ids = ids.masked_fill(mask == 0, model.config.pad_token_id)
    return {"input_ids": ids.scatter(1, lengths - 1, 0), "attention_mask": mask}


def through(model: Any) -> Search:
    """Searches of a model of transformers, or of one that runs in engines."""

    def make(source: dict[str, torch.Tensor], beams: int, length: int) -> Callable[[], torch.Tensor]:
        translate = searcher(model, BeamSearch(beams=beams, length_penalty=1.0, max_new_tokens=length))
        return lambda: translate(source)

    return make


def own_forms(model: Any, folder: Path, options: argparse.Namespace) -> dict[str, Search]:
    """Engines of both runtimes in FP32, in INT8, and in INT8 with a cache of integers."""
    example = {**sentences(model, 32, options.length)}
    example["decoder_input_ids"] = example["input_ids"]
    quantized = copy.deepcopy(model)
    quantization = insert(quantized, QuantizationConfig(placement=Placement(name="all", sites=SITES)))
    with quantization.observing(example["attention_mask"], example["attention_mask"]), torch.no_grad():
        quantized(**example)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    quantization.export_mode()
    forms: dict[str, Search] = {}
    for name, exported in (("fp32", model), ("int8", quantized)):
        (folder / name).mkdir()
        export_translation(exported, folder / name, example=example)
    integers = shutil.copytree(folder / "int8", folder / "int8, cache 8")
    store_integers(integers / ENCODER, integers / DECODER)
    for runtime in ("onnxruntime", "openvino"):
        for name in ("fp32", "int8", "int8, cache 8"):
            forms[f"{runtime} {name}"] = through(_translator(folder / name, runtime, name, options.threads))
    return forms


def _translator(folder: Path, runtime: str, name: str, threads: int) -> Any:
    precision: Any = name[:4]
    return load_translator(folder, lambda file: load(runtime, EngineSpec(file, precision, threads)))


def peers(model: Any, folder: Path, options: argparse.Namespace) -> dict[str, Search]:
    """CTranslate2 in FP32 and in its own INT8."""
    return {
        f"ctranslate2 {name}": CTranslate2(model, folder / f"ct2-{name}", name, options.threads).call
        for name in ("fp32", "int8")
    }


def measure(forms: dict[str, Search], model: Any, rows: int, beams: int, options: argparse.Namespace) -> Any:
    """All forms in turns on one batch: print a table, and return its numbers."""
    source = sentences(model, rows, options.length)
    calls = {name: make(source, beams, options.new) for name, make in forms.items()}
    readings = alternate(calls, options.rounds, BASELINE)
    reference = through(model)(source, beams, options.new)()
    equal = {name: float((call() == reference).float().mean()) for name, call in calls.items()}
    table = [_row(name, reading, equal[name], rows, options) for name, reading in readings.items()]
    heads = ("", "ms", "sentences/s", "tokens/s", "ratio", "within rounds", "equal")
    show_rows(f"{options.model}, batch {rows}, beam {beams}", heads, table)
    return {"readings": readings, "equal": equal}


def _row(name: str, found: Reading, equal: float, rows: int, options: argparse.Namespace) -> tuple[str, ...]:
    rate = rows / found.seconds
    return (
        name, f"{found.seconds * 1e3:.1f}", f"{rate:.1f}", f"{rate * options.new:.0f}", f"{found.ratio:.2f}",
        f"{found.least:.2f} .. {found.largest:.2f}", f"{equal:.1%}",
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--model", choices=SIZES, default="transformer_tiny")
    found.add_argument("--rows", default="1,8,32", help="batch sizes, with commas between them")
    found.add_argument("--beams", default="1,5", help="beams, with commas between them")
    for name, value in (("length", 14), ("new", 16), ("rounds", 7), ("threads", 2)):
        found.add_argument(f"--{name}", type=int, default=value)
    found.add_argument("--json", type=Path, default=None, help="file for all figures")
    add_peers(found)
    options = found.parse_args(arguments)
    set_threads(options.threads)
    model, tables = random_model(options.model), {}
    with tempfile.TemporaryDirectory(prefix="qexp-benchmark-") as name:
        forms = {"torch fp32": through(model), **own_forms(model, Path(name), options)}
        forms |= peers(model, Path(name), options) if options.peers else {}
        for beams in map(int, options.beams.split(",")):
            for rows in map(int, options.rows.split(",")):
                tables[f"{rows}xbeam{beams}"] = measure(forms, model, rows, beams, options)
    print(f"\nCTranslate2 {version('ctranslate2')}, OpenVINO {version('openvino')}")
    write(options.json, {"settings": settings(options), "tables": tables})


if __name__ == "__main__":
    main(sys.argv[1:])
