"""``python -m qexp``: words to one plain tree, and the tree to a run.

The only file that knows Hydra and OmegaConf. Whatever is slow to import is imported where it is
first needed, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qexp.errors import FAILED, INTERRUPTED

WIDTHS = (*range(2, 17), 32)
"""Bits that ``quant=`` can name, as in :class:`qexp.config.Quant`."""


def conf_folder() -> Path:
    """The configuration: inside the package in an installed wheel, beside it in a checkout."""
    inside = Path(__file__).resolve().parent / "conf"
    return inside if inside.is_dir() else inside.parent.parent / "conf"


def main() -> None:
    """Run what the command line says; the exit code is 0 only if every run is well."""
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    def job(config: DictConfig) -> None:
        codes.append(_run(config))
        if codes[-1] == INTERRUPTED:
            sys.exit(INTERRUPTED)

    if {"--help", "-h"} & set(sys.argv[1:]) and not any(word.startswith("task=") for word in sys.argv):
        sys.argv.append("task=mrpc")  # Hydra composes even for its help, and a task has no default
    _offer_widths(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise what goes wrong, so that it is worded here
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {_reword(error)}", file=sys.stderr)
        sys.exit(FAILED)
    except OSError as error:  # Hydra makes its folder before the run begins
        print(f"error: {error}; QEXP_OUTPUTS names a folder that can be written", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit(max(codes, default=0))


def _offer_widths(words: list[str]) -> None:
    """Make ``quant=w5a7`` an option although no file says so: any pair of 2 to 16 bits, or 32 for float."""
    known = {file.stem for file in (conf_folder() / "quant").glob("*.yaml")}
    for weight, activation in re.findall(r"\bw(\d+)a(\d+)\b", " ".join(words)):
        name, bits = (
            f"w{weight}a{activation}",
            {"weight_bits": int(weight), "activation_bits": int(activation)},
        )
        if name not in known and all(value in WIDTHS for value in bits.values()):
            ConfigStore.instance().store(group="quant", name=name, node=bits)


def _run(config: DictConfig) -> int:
    """One composed run; its Record says what came of it, the return value is its exit code."""
    from qexp.jobs import Job

    tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(tree, dict)
    return Job(tree, sweep=HydraConfig.get().mode == RunMode.MULTIRUN).run()  # type: ignore[arg-type]


def _reword(error: Exception) -> str:
    """Hydra's and OmegaConf's errors with the field, what is allowed, and what to do."""
    words = str(error).strip()
    if field := re.search(r"Could not override '([\w.]+)'", words):
        from qexp.wording import unknown_field

        return unknown_field(field[1])
    words = words.split("\nConfig search path", 1)[0]
    if "'quant/" in words:
        words += "\nand any other pair of 2 to 16 bits, 32 for floating point, such as quant=w5a7"
    return words
