"""A model, in float or quantized, to an ONNX file, or to two of a translator."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Graph, Ranges, Tokens
from qexp.config import Form, Task
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    form: Form | None,
    ranges: Ranges | None,
    tokens: Tokens,
    task: Task,
    *,
    rt: Runtime,
) -> None:
    """Write the graph with Q/DQ pairs and integer weights, or in plain FP32 without a form."""
    import numpy as np

    from qexp.deploy.onnx.int4 import worth_half_bytes
    from qexp.models.inference import load_quantized
    from qexp.tasks import family_of
    from qexp.tasks.exported import export

    model, quantization = load_quantized(encoder, form, ranges, rt)
    model = model.cpu()
    if quantization is not None:
        quantization.export_form()
    family = family_of(task)
    batch = family.collate(family.split(tokens.split(task.train)), np.arange(2), tokens.pad_id)
    with rt.screen.bar(f"export {form.quant.name if form else 'fp32'}", total=1) as move:
        narrow = form is not None and worth_half_bytes(form.quant)
        files = export(model, task, work.folder, batch, narrow=narrow)
        move()
    work.write_facts({"files": files, "vocabulary": model.config.vocab_size})


STAGE = Stage("7-onnx", 4, Graph, run)
