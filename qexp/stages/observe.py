"""One pass over calibration rows to the statistics of every activation."""

from __future__ import annotations

from qexp.artifacts import Encoder, Statistics, Tokens
from qexp.config import Calibration, Form, Numerics, Placement, Quant, Task
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace

OBSERVED = Quant(weight_bits=32, activation_bits=8)
"""Which bits does not matter to statistics; that activations have a quantizer does."""


def run(
    work: Workplace,
    encoder: Encoder,
    tokens: Tokens,
    task: Task,
    placement: Placement,
    calibration: Calibration,
    calibration_rows: int | None,
    seed: int,
    dimensions: bool,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Run the float model over rows of the train split; every calibrator and bit-width reads the result.

    Rows of similar length share a batch, and batches come in random order: little is computed on
    padding, and a moving average does not end with the longest rows. Which rows share a batch matters
    to ``ema`` alone; the first batch's largest magnitude sets the width of the bins, within which the
    other calibrators are exact. What some of them need of each dimension is left out where nothing does.
    """
    import numpy as np

    from qexp.data.batches import evaluation_batches
    from qexp.lit.encoder import load_saved
    from qexp.lit.families import family_of
    from qexp.lit.inference import runner
    from qexp.quant.insert import insert
    from qexp.runtime import device_of, set_threads

    set_threads(rt.threads)
    model = load_saved(encoder.model).to(device_of(rt.machine))
    quantization = insert(model, Form(placement=placement, quant=OBSERVED))
    family = family_of(task)
    split = family.split(tokens.split(task.train))
    count = min(calibration.samples, calibration_rows or calibration.samples, len(split))
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(split))[:count]
    similar = evaluation_batches(split.lengths[rows], batch_size=calibration.batch_size)
    batches = [rows[similar[index]] for index in rng.permutation(len(similar))]
    forward = runner(model, rt)
    with rt.screen.bar(f"observe {task.name}", total=count) as move:
        for batch in batches:
            tensors = family.collate(split, batch, tokens.pad_id)
            masks = tensors["attention_mask"], tensors.get("target_mask")
            with quantization.observing(*masks, dimensions=dimensions):
                forward(tensors)
            move(len(batch))
    quantization.statistics().save(Statistics(work.folder, "").file)
    work.write_facts({"rows": count, "batches": len(batches)})


STAGE = Stage("3-statistics", 2, Statistics, run)
