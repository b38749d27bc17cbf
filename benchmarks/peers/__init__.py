"""What this project is measured against, each prepared for training as its own documents say.

A peer that is not installed, or that fails, is left out of the tables and named with the reason below
them and in the JSON file.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Any

import torch

from benchmarks.peers import brevitas, hooks, modelopt, own, torchao
from benchmarks.shapes import Batch, Family

HOOKS = "linear layers, all four matmul inputs, both operands of residual adds"


@dataclass(frozen=True)
class Peer:
    """One way to prepare a model for quantization-aware training.

    ``prepare`` gets a float model, a name of a site set and the calibration batch, and returns the
    model to train. ``sites`` says in words what it quantizes, for each site set that it knows.
    """

    prepare: Callable[[Any, str, Batch], Any]
    sites: dict[str, str]
    module: str | None = None
    """What must be importable."""


def _own(model: Any, sites: str, batch: Batch, mode: own.Phase) -> Any:
    own.prepare(model, own.PLACEMENTS[sites], batch, mode)
    return model


OWN = {
    f"qexp {mode}": Peer(partial(_own, mode=mode), {"linear": "linear layers", "qdqbert": HOOKS})
    for mode in ("frozen", "learned")
}
PEERS = {
    "modelopt": Peer(modelopt.prepare, modelopt.SITES, "modelopt"),
    "torchao": Peer(torchao.prepare, torchao.SITES, "torchao"),
    "brevitas frozen": Peer(brevitas.prepare, brevitas.SITES, "brevitas"),
    "brevitas learned": Peer(partial(brevitas.prepare, mode="learned"), brevitas.SITES, "brevitas"),
    "torch hooks": Peer(hooks.prepare, {"linear": "linear layers", "qdqbert": HOOKS}),
}
NOT_COMPARABLE = {
    "neural-compressor": "version 3.10 trains in MXFP8 and MXFP4 only, through auto-round; no INT8 QAT",
}
"""Peers that have nothing to measure against, and why."""


@dataclass
class Prepared:
    """Models ready to train, by name, and what was left out."""

    models: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    drift: dict[str, float] = field(default_factory=dict)
    """Largest change of a logit of the calibration batch against FP32, over the largest logit."""

    def show(self) -> None:
        """Print what each model quantizes, and what is missing."""
        for name, sites in self.sites.items():
            print(f"  {name}: {sites}; moves logits by {self.drift[name]:.2%}", flush=True)
        for name, reason in self.skipped.items():
            print(f"  left out: {name}: {reason}", flush=True)


def prepare(family: Family, sites: str, batch: Batch, names: dict[str, Peer]) -> Prepared:
    """Prepare all peers that know the site set."""
    found = Prepared(skipped=dict(NOT_COMPARABLE) if set(PEERS) & set(names) else {})
    reference = logits(family.build(), batch)
    for name, peer in names.items():
        if (reason := _missing(peer, sites)) is not None:
            found.skipped[name] = reason
            continue
        model, problem = attempt(peer.prepare, family.build(), sites, batch)
        if problem is not None:
            found.skipped[name] = problem
            continue
        change = (logits(model.eval(), batch) - reference).abs().max() / reference.abs().max()
        found.models[name], found.sites[name] = model, peer.sites[sites]
        found.drift[name] = float(change)
    return found


def attempt(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """What the call returns, or None and why it failed: others are still to be measured."""
    try:
        with quiet():
            return call(*arguments), None
    except Exception as error:  # another project raises whatever it likes
        return None, f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def logits(model: Any, batch: Batch) -> torch.Tensor:
    """What the model answers, without gradients."""
    with torch.no_grad():
        answer: torch.Tensor = model(**batch).logits
    return answer


def _missing(peer: Peer, sites: str) -> str | None:
    if sites not in peer.sites:
        return f"does not quantize the sites of {sites}"
    if peer.module is not None and importlib.util.find_spec(peer.module) is None:
        return f"{peer.module} is not installed: pip install qexp[bench]"
    return None


class quiet:
    """Without the remarks of peers on their own installation; errors stay errors."""

    def __enter__(self) -> None:
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.simplefilter("ignore")
        self.output = redirect_stdout(StringIO())
        self.output.__enter__()
        self.level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *problem: Any) -> None:
        logging.disable(self.level)
        self.output.__exit__(*problem)
        self.warnings.__exit__(*problem)
