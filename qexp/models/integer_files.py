"""Files of a checkpoint with integer weights: saved beside an exported graph, and published without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS, SECTION = "config.json", "model.safetensors", "quantization_config"
SUMMARY = "summary.json"
"""The section of ``config.json``, counts of what is stored, and all sites with their bits."""


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of saved integers."""
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    return summary


def publish_integers(saved: Path, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``config.json`` and ``model.safetensors`` of saved integers, and return counts of what they hold.

    Args:
        saved: Folder of the saved integers.
        config: Content of the float model's ``config.json``.
        folder: Existing folder.
    """
    summary = read_summary(saved)
    content = {**config, SECTION: summary["section"]}
    (folder / CONFIG).write_text(json.dumps(content, indent=2), encoding="utf-8")
    shutil.copyfile(saved / WEIGHTS, folder / WEIGHTS)
    return {name: summary[name] for name in ("stored", "inputs", "in_float")}
