"""The command that makes a run's artifacts again, from its Record."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

GROUPS = {
    "calibrator": "kind",
    "placement": "name",
    "method": "kind",
    "finetune": "kind",
    "budget": "name",
    "data": "source",
}
"""Sections that are chosen by a word, and their field that holds it."""
KNOWN = ("task", "quant", "deploy")
"""Sections that are told by a word alone."""
OWN = ("machine.threads", "machine.progress", "machine.checkpoint_seconds")
"""Fields that change no artifact."""
_PLAIN = re.compile(r"[A-Za-z_./~][\w./:@+~-]*")


def command_of(experiment: Mapping[str, Any], quant: str) -> str:
    """A line for a shell: every value spelled out, without deployment.

    Args:
        experiment: of a Record.
        quant: short name of its bit-widths.
    """
    words = [f"task={experiment['task']['name']}", f"quant={quant}"]
    chosen = {group: experiment[group][field] for group, field in GROUPS.items() if group in experiment}
    words += [f"{group}={word}" for group, word in chosen.items() if (group, word) != ("method", "none")]
    words += ["machine=gpu"] if experiment.get("machine", {}).get("accelerator") == "gpu" else []
    words += ["deploy=none"]
    skipped = {*OWN, *(f"{group}.{field}" for group, field in GROUPS.items())}
    for section in (name for name in experiment if name not in KNOWN):
        leaves = _leaves(experiment[section], section)
        words += [f"{path}={_word(value)}" for path, value in leaves if path not in skipped]
    return shlex.join(["python", "-m", "qexp", *words])


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}")
    else:
        yield path, value


def _word(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
