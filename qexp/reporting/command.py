"""The command line that asks for the experiment of a Record again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qexp.reporting.facts import Run, leaves

_BY_KIND = ("calibrator", "finetune", "method", "deploy")
_BY_NAME = ("task", "placement", "budget")
_HERE = ("tracker.", "machine.threads", "machine.checkpoint_seconds", "machine.progress", "data.source")
"""What a rerun elsewhere decides for itself, or what a group's word says already."""


def command_of(run: Run) -> str:
    """``python -m qexp task=… …``: groups by their options, and every value that these do not give."""
    options = _options(run)
    given = {
        f"{group}.{path}": value
        for group, option in options.items()
        for path, value in leaves(_yaml(f"{group}/{option}"))
    }
    given |= dict(leaves({name: _yaml("config").get(name) for name in ("seed", "calibration")}))
    words = [f"{group}={option}" for group, option in options.items() if group not in ("scheme", "model")]
    words += [f"quant={run.quant}"]
    for path, value in leaves(run.record.experiment):
        if path.startswith(("quant.", *_HERE)) or (path not in given and _is_default(path, value)):
            continue
        if path.endswith((".kind", "placement.name", "budget.name", "machine.accelerator")):
            continue
        if path not in given or given[path] != value:
            words.append(f"{'' if path in given else '++'}{path}={_word(value)}")
    return shlex.join(["python", "-m", "qexp", *words])


def _is_default(path: str, value: Any) -> bool:
    """Whether a value that no file mentions goes without saying: it is null, or the task's own."""
    return value is None or path.startswith("task.")


def _options(run: Run) -> dict[str, str]:
    """Option of each configuration group, as far as a Record tells it."""
    chosen = {group: run.find(f"{group}.name") for group in _BY_NAME}
    chosen |= {group: run.find(f"{group}.kind") for group in _BY_KIND}
    if chosen["method"] == "none":  # what method=auto makes of quant=fp32
        chosen["method"] = "auto"
    chosen |= {"machine": "gpu" if run.find("machine.accelerator") == "gpu" else "cpu", "data": run.source}
    chosen |= {"scheme": "per_channel", "model": "minilm_l6"}  # the defaults
    return {group: str(option) for group, option in chosen.items() if option is not None}


def _yaml(name: str) -> Mapping[str, Any]:
    """A file of the configuration, empty if there is none: its values are then spelled out."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (file := folder / f"{name}.yaml").is_file():
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            return tree if isinstance(tree, dict) else {}
    return {}


def _word(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w./:+-]*", value) and value.lower() not in ("null", "true", "false")
        before_quotes = re.sub(r"\\+(?='|$)", lambda found: found[0] * 2, value)
        return value if plain else "'" + before_quotes.replace("'", "\\'") + "'"
    return json.dumps(value)
