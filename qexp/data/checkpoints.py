"""Location of pretrained checkpoints: a local folder, a package of weights, or the model hub.

Only safetensors are accepted: a pickle (``pytorch_model.bin``) can run code while it is loaded, so pickles
are never loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qexp.config import FromScratch, Model
from qexp.data import hub, wheel_weights
from qexp.data.wheel_weights import PACKAGES, WEIGHTS, Package, file_sha256
from qexp.errors import ModelError, path_hint

CONFIG, INDEX = "config.json", "model.safetensors.index.json"

VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("tokenizer.model",),
    ("spm.model",),
    ("source.spm", "target.spm", "vocab.json"),
)
"""Sets of files, each of which is sufficient for a tokenizer."""

TOKENIZER_FILES = (
    *(file for files in VOCABULARIES for file in files),
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files that determine how a text is tokenized."""

CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "t = torch.load('pytorch_model.bin', map_location='cpu', weights_only=True); "
    "s.save_file({k: v.clone().contiguous() for k, v in t.items()}, 'model.safetensors', {'format': 'pt'})\""
)
"""Command that converts a pickle to safetensors."""


ADAPTER = "adapter_config.json"
"""File of a LoRA adapter without the model that it adapts."""
MERGE = (
    "merge the adapter into the model that it was trained on, with peft: "
    "PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(...), with the tokenizer"
)
WRAPPERS = ("_orig_mod.", "module.")
"""What ``torch.compile`` and ``DataParallel`` put before the names of a model's weights."""
RENAME = (
    "python -c \"import safetensors.torch as s; f = 'model.safetensors'; t = s.load_file(f); "
    "s.save_file({{k.removeprefix('{wrapper}'): v for k, v in t.items()}}, f, {{'format': 'pt'}})\""
)
"""Command that takes such a prefix away."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``config.json``, safetensors and a tokenizer.

    Attributes:
        folder: Path of the folder.
        fingerprint: sha256 (hex) over the names and contents of these files, independent of the folder.
        name: ``model.name``, as given.
    """

    folder: Path
    fingerprint: str
    name: str


INITIALIZATION = "fairseq"
"""Rule by which the weights of a model from scratch are drawn."""


@dataclass(frozen=True)
class ScratchModel:
    """A model that is initialized with random weights.

    Attributes:
        scratch: Sizes of the model.
        name: ``model.name``, as given.
    """

    scratch: FromScratch
    name: str

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the sizes and the rule by which weights are drawn."""
        return hashlib.sha256(f"{INITIALIZATION} {self.scratch.model_dump_json()}".encode()).hexdigest()


def locate(model: Model) -> Checkpoint | ScratchModel:
    """Find the checkpoint, fetch it if needed, and check that it is complete and consists of safetensors.

    A local folder takes precedence, then packaged weights (unless ``model.revision`` asks for a revision on
    the hub), then the hub, whose local cache is tried before the network. For a model from scratch only its
    sizes are returned.

    Raises:
        ModelError: The checkpoint is not found, out of reach, incomplete, not safetensors, or has the wrong
            checksum.
    """
    if model.scratch is not None:
        return ScratchModel(model.scratch, model.name)
    folder = Path(model.name).expanduser()
    if folder.is_dir():
        if model.revision is not None:
            raise ModelError(
                f"model.revision={model.revision}: model.name={model.name} is a local folder, which has no "
                "revisions; set model.revision=null"
            )
        return _checkpoint(folder.absolute(), model.name)
    if model.name.startswith((".", "~", os.sep)):
        hint = path_hint(model.name, folder=True)
        raise ModelError(
            f"model.name={model.name}: no such folder; {hint}give one with {CONFIG} and {WEIGHTS}"
        )
    package = PACKAGES.get(model.name) if model.revision is None else None
    return _checkpoint(_packaged(model, package) if package else _from_hub(model), model.name)


def config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read the checkpoint's ``config.json``.

    Raises:
        ModelError: The file is missing or not a JSON object.
    """
    return _json(checkpoint.folder / CONFIG, checkpoint.name)


def float_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of a checkpoint's weights in float32, from the headers of its files."""
    elements = 0
    for path in checkpoint.folder.glob("*.safetensors"):
        with path.open("rb") as file:
            tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        tensors.pop("__metadata__", None)
        elements += sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    return 4 * elements


def _checkpoint(folder: Path, name: str) -> Checkpoint:
    content = [[file, file_sha256(folder / file)] for file in sorted(_files(folder, name))]
    return Checkpoint(folder, hashlib.sha256(json.dumps(content).encode()).hexdigest(), name)


def _packaged(model: Model, package: Package) -> Path:
    """Return the folder of packaged weights, or of the same weights on the hub if pip or its index fails."""
    try:
        return wheel_weights.locate(model.name, package)
    except ModelError as error:
        try:
            folder = _from_hub(model)
        except ModelError as hub_error:
            raise ModelError(f"{error}. The hub does not help either: {hub_error}") from error
        if wheel_weights.genuine(folder, package):
            return folder
        raise ModelError(f"{error}. {folder} holds other weights than the package") from error


def _from_hub(model: Model) -> Path:
    """Return a snapshot from the local hub cache if it is complete, else from the hub."""
    patterns = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES]
    cached = hub.snapshot(model.name, model.revision, patterns, online=False)
    problem = (
        _incompleteness(cached, model.name)
        if cached
        else f"model.name={model.name}: not in the local hub cache"
    )
    if cached and not problem:
        return cached
    try:
        fetched = hub.snapshot(model.name, model.revision, patterns, online=True)
    except ModelError as error:
        near = f"If a folder is meant: {hint}" if (hint := path_hint(model.name, folder=True)) else ""
        packaged = [f"packaged weights, model.name={other}; " for other in PACKAGES if other != model.name]
        raise ModelError(
            f"{problem}; {error}. {near}Ways out: model.name=FOLDER with {CONFIG}, {WEIGHTS} and "
            f"a tokenizer; {''.join(packaged)}HF_HOME set to a cache that has the model"
        ) from error
    assert fetched is not None
    return fetched


def _incompleteness(folder: Path, name: str) -> str | None:
    """Return what a cached snapshot lacks; another program may have fetched only a part of it."""
    try:
        _files(folder, name)
    except ModelError as error:
        return str(error)
    return None


def _files(folder: Path, name: str) -> list[str]:
    """Return the names of the model's files, after checking that none is missing or of another format."""
    if (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file():
        raise ModelError(f"model.name={name}: {folder} holds {ADAPTER}, and no model: {MERGE}")
    _check_code(_json(folder / CONFIG, name), name)
    weights = _weight_files(folder, name)
    if not any(all((folder / file).is_file() for file in files) for files in VOCABULARIES):
        raise ModelError(
            f"model.name={name}: {folder} has no tokenizer; save it there: "
            f"AutoTokenizer.from_pretrained(...).save_pretrained('{folder}')"
        )
    return [CONFIG, *weights, *(file for file in TOKENIZER_FILES if (folder / file).is_file())]


def _check_code(config: dict[str, Any], name: str) -> None:
    """Reject a model that only code of the checkpoint's own can compute."""
    if not config.get("auto_map"):
        return
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        raise ModelError(
            f"model.name={name}: its {CONFIG} names code of its own (auto_map), which is never run, and "
            f"model_type={config.get('model_type')} is none of transformers'; choose a checkpoint of an "
            "architecture that transformers has"
        )


def _weight_files(folder: Path, name: str) -> list[str]:
    if (folder / WEIGHTS).is_file():
        _check_safetensors(folder / WEIGHTS, name)
        return [WEIGHTS]
    if not (folder / INDEX).is_file():
        raise ModelError(f"model.name={name}: {_no_safetensors(folder)}")
    shards = _json(folder / INDEX, name).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"model.name={name}: {folder / INDEX} has no weight_map; save the model again")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise ModelError(f"model.name={name}: {folder} lacks {shard!r}, which {INDEX} names; add it")
        _check_safetensors(folder / shard, name)
    return [INDEX, *sorted(set(shards.values()))]


def _no_safetensors(folder: Path) -> str:
    present = sorted(path.name for path in folder.iterdir())
    pickles = [file for file in present if Path(file).suffix in {".bin", ".pt", ".pth", ".ckpt"}]
    if pickles:
        return (
            f"{folder} holds {', '.join(pickles)} but no {WEIGHTS}. A pickle can run code and is never "
            f"loaded; if you trust where it comes from, convert it in that folder: {CONVERT}"
        )
    return (
        f"{folder} has no {WEIGHTS} and no {INDEX}, only {', '.join(present)}; pickled weights "
        f"(pytorch_model.bin) are never loaded. Save the model with save_pretrained, or convert it: {CONVERT}"
    )


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"model.name={name}: {path.parent} has no {path.name}; save the model again"
        ) from error
    except ValueError as error:
        raise ModelError(f"model.name={name}: {path} is not JSON: {error}; save the model again") from error
    if not isinstance(tree, dict):
        raise ModelError(f"model.name={name}: {path} holds no JSON object; save the model again")
    return tree


def _check_safetensors(path: Path, name: str) -> None:
    """Reject a file that is truncated or of another format (a pickle, a Git LFS pointer).

    A safetensors file holds the length of a JSON header in 8 bytes, the header, and the tensors
    (https://huggingface.co/docs/safetensors).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= size - 8 else b""
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        end = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"model.name={name}: {path} ({size} bytes) is not a safetensors file; download or save it again"
        ) from error
    wrapper = next((each for each in WRAPPERS if all(key.startswith(each) for key in tensors)), None)
    if wrapper and tensors:
        raise ModelError(
            f"model.name={name}: all names in {path} begin with {wrapper!r}, as a wrapped model's do; save "
            f"the model inside, or rename them in that folder: {RENAME.format(wrapper=wrapper)}"
        )
    if size != end:
        raise ModelError(
            f"model.name={name}: {path} has {size} bytes, its header promises {end}; "
            "download or save it again"
        )
