"""What tests share: a clean outputs folder, composed experiments, and small random models on disk."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from qexp.config import Experiment, Machine
from qexp.context import RunContext
from qexp.environment import conf_folder

if not Path("/dev/nvidia0").exists():
    # Before anything imports Triton, whose own library is made for one way of running or the other.
    os.environ["TRITON_INTERPRET"] = "1"

# How long an example takes says more of the machine than of the code.
settings.register_profile("drawn", deadline=None)
settings.register_profile("repeated", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "drawn"))

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "house",
    "tree",
    "river",
    "man",
    "woman",
    "sees",
    "likes",
    "finds",
    "old",
    "new",
    "red",
    "blue",
    "not",
    "and",
    "of",
    "in",
    "on",
    "is",
    "was",
]


LONG = (
    "execution/test_job", "tracking/test_wandb", "runtimes/test_compositions", "onnx/test_export",
    "cli/test_run", "config/test_conf", "config/test_config", "pipeline/test_translation",
    "cli/test_sensitivity", "analysis/test_bisect", "onnx/test_dynamic", "onnx/test_blocks",
    "config/test_recipes", "cli/test_benchmark", "kernels/test_native", "execution/test_any_input",
    "onnx/test_floats", "tests/test_startup", "formats/test_html", "tracking/test_mirror",
    "execution/test_plan", "quant/test_own_module_page", "tensorrt/test_engine_rtx",
    "pipeline/test_deployment", "models/test_distillation", "tracking/test_mlflow",
    "execution/test_dry_run", "runtimes/test_capabilities", "onnx/test_int4", "benchmarks/test_commands",
    "execution/test_slurm_cluster", "pipeline/test_architectures", "tests/test_wheel",
)  # fmt: skip
"""Files that take longest, the longest first."""


def pytest_configure() -> None:
    """Collect no garbage while thousands of tests are collected, of which none is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave them out of every collection of garbage that follows."""
    gc.enable()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Have them collected at the end, as libraries that count their objects expect."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first: with a file for each process, one of them would else have the last to itself."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(f"{item.path.parent.name}/{item.path.stem}", len(LONG)))


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's outputs, the user's data root, or a hub."""
    _parse_translations_once()
    _parse_options_once()
    monkeypatch.setenv("QEXP_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture(scope="session", autouse=True)
def _graphs_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Name the folder in which all processes of a run of tests share graphs (tests/support/graphs.py)."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "graphs"
    folder.mkdir(exist_ok=True)
    os.environ.setdefault("QEXP_TEST_GRAPHS", str(folder))


def _parse_translations_once() -> None:
    """Keep the exporter's table of translations, for which it parses some 500 functions at each export.

    It is the same table every time, and an export adds its own operators to a copy; where the class is made
    otherwise, nothing happens.
    """
    exporter = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(exporter, "ONNXRegistry", None)
    if registry is None or hasattr(registry, "parsed"):
        return
    registry.parsed = staticmethod(cache(registry.from_torchlib))

    def from_torchlib(**opset: int) -> Any:
        made = copy(registry.parsed(**opset))
        made.functions = {name: [*translations] for name, translations in made.functions.items()}
        return made

    registry.from_torchlib = staticmethod(from_torchlib)


def _parse_options_once() -> None:
    """Keep what Hydra parses of ``conf/``, some 20 files for each composition."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    source: Any = FileConfigSource
    if hasattr(source, "parsed"):
        return
    parse, root = source.load_config, str(conf_folder())
    source.parsed = {}

    def load_config(self: Any, config_path: str) -> Any:
        if self.path != root:
            return parse(self, config_path)
        key = (self.provider, config_path)
        if key not in source.parsed:
            source.parsed[key] = parse(self, config_path)
        return deepcopy(source.parsed[key])

    source.load_config = load_config


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.support.tiny_runs import TinyRuns

    return TinyRuns(tmp_path_factory.mktemp)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def compose(*overrides: str) -> dict[str, Any]:
    """The plain tree of an experiment, composed as the command line does; the caller's own."""
    return deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Each combination once for a process: Hydra reads and merges some 20 files every time."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        tree = OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def experiment(*overrides: str) -> Experiment:
    return Experiment.model_validate(compose(*overrides))


def _vocabulary() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [str(digit) for digit in range(10)]
    marks = list(".,;:!?'\"()-$%&/")
    return [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{x}" for x in letters),
        *marks,
        *WORDS,
    ]


def save_tokenizer(folder: Path) -> int:
    """A small WordPiece tokenizer that can spell every English text; returns its size."""
    from transformers import BertTokenizerFast

    vocabulary = folder / "vocab.txt"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join(dict.fromkeys(_vocabulary())), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), do_lower_case=True)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def tiny_config(architecture: str, vocabulary: int, **more: Any) -> Any:
    """A two-layer configuration of one of the supported architectures."""
    from transformers import BertConfig, DistilBertConfig, ElectraConfig, MobileBertConfig, RobertaConfig

    common = dict(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=160, pad_token_id=0, **more,
    )  # fmt: skip
    makers: dict[str, Callable[[], Any]] = {
        "bert": lambda: BertConfig(**common),
        "roberta": lambda: RobertaConfig(**common, type_vocab_size=2),
        "electra": lambda: ElectraConfig(**common, embedding_size=16),
        "mobilebert": lambda: MobileBertConfig(**common, embedding_size=16, intra_bottleneck_size=16),
        "distilbert": lambda: DistilBertConfig(
            vocab_size=vocabulary,
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=64,
            max_position_embeddings=160,
            **more,
        ),
    }
    return makers[architecture]()


ARCHITECTURES: Sequence[str] = ("bert", "roberta", "electra", "distilbert")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a small pretrained encoder (random weights, real tokenizer) of an architecture."""
    import torch
    from transformers import AutoModel

    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            torch.manual_seed(0)
            AutoModel.from_config(tiny_config(architecture, save_tokenizer(folder))).save_pretrained(folder)
            made[architecture] = folder
        return made[architecture]

    return make


@pytest.fixture
def runtime(tmp_path: Path) -> RunContext:
    """A machine of one thread, as each process of tests has, with outputs of its own."""
    return RunContext.at(tmp_path / "outputs", Machine(threads=1, progress=False))


@pytest.fixture
def tiny_bert(tiny_models: Callable[[str], Path]) -> Path:
    return tiny_models("bert")
