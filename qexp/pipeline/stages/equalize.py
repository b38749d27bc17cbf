"""Weights scaled against each other where that leaves the float model as it is."""

from __future__ import annotations

from dataclasses import asdict

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder
from qexp.context import Runtime


def run(work: Workplace, encoder: Encoder, *, rt: Runtime) -> None:
    """Find pairs of layers by trying, and even out the ranges of their channels."""
    from qexp.context import set_threads
    from qexp.models.loading import load_saved, save
    from qexp.quant.algorithms.cross_layer_equalization import equalize, find_pairs

    set_threads(rt.threads)
    model = load_saved(encoder.model)
    with rt.screen.bar("equalize", total=1) as move:
        pairs = find_pairs(model)
        equalize(model, pairs)
        move()
    if not pairs:
        rt.screen.warn(
            f"refinement.equalize: no two layers of {type(model).__name__} can be scaled against each other, "
            "so it stays as it is"
        )
    save(model, Encoder(work.folder, "").model)
    work.write_facts({"pairs": [asdict(pair) for pair in pairs]})


STAGE = Stage("2-equalized", 1, Encoder, run)
