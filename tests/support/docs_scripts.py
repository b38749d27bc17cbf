"""Scripts of docs/, which are in no package."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def script(name: str) -> Any:
    """Return the module of a script below docs/, such as ``images/pipeline.py``."""
    spec = spec_from_file_location(f"docs_{Path(name).stem}", DOCS / name)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
