"""Stage of cross-layer equalization, which rescales weights without changing the float model's function."""

from __future__ import annotations

from dataclasses import asdict

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact
from qexp.context import RunContext
from qexp.naming import StageName


def run(work: BuildDir, ctx: RunContext, *, encoder: ModelArtifact) -> None:
    """Find pairs of layers that can be rescaled by trial, and equalize the ranges of their channels."""
    from qexp.context import set_threads
    from qexp.models.loading import load_saved, save
    from qexp.quant.algorithms.cross_layer_equalization import equalize, find_pairs

    set_threads(ctx.threads)
    model = load_saved(encoder.model)
    with ctx.console.bar("equalize", total=1) as advance:
        pairs = find_pairs(model)
        left = equalize(model, pairs)
        advance()
    if not pairs:
        ctx.console.warn(
            f"refinement.equalize: no two layers of {type(model).__name__} can be scaled against each other, "
            "so it stays as it is"
        )
    if left:
        ctx.console.warn(
            f"refinement.equalize: {sum(left.values())} channels whose weights are next to zero stay as they "
            f"are, in {', '.join(left)}"
        )
    save(model, ModelArtifact(work.folder, "").model)
    work.write_facts({"pairs": [asdict(pair) for pair in pairs], "left_alone": left})


STAGE = Stage(StageName.EQUALIZED, 2, ModelArtifact, run, keys={"encoder": "encoder"})
