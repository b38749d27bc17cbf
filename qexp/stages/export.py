"""A model, in float or quantized, to an ONNX file."""

from __future__ import annotations

from qexp.artifacts import Encoder, Graph, Ranges, Tokens
from qexp.config import Form, Task
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


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

    from qexp.deploy.onnx_export import export_onnx
    from qexp.lit.encoder import model_inputs
    from qexp.lit.families import family_of
    from qexp.lit.inference import load_quantized

    model, quantization = load_quantized(encoder, form, ranges, rt)
    model = model.cpu()
    if quantization is not None:
        quantization.export_form()
    else:
        model.set_attn_implementation("eager")  # sdpa leaves NaN guards in the graph that cost time
    family = family_of(task)
    batch = family.collate(family.split(tokens.split(task.train)), np.arange(2), tokens.pad_id)
    example = {name: batch[name] for name in model_inputs(model)}
    with rt.screen.bar(f"export {form.quant.name if form else 'fp32'}", total=1) as move:
        export_onnx(model, Graph(work.folder, "").file, example=example)
        move()
    work.write_facts({"inputs": list(example), "vocabulary": model.config.vocab_size})


STAGE = Stage("7-onnx", 1, Graph, run)
