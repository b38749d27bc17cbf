"""Stage that exports a model, float or quantized, to ONNX: one file, or two for a translation model."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import Graph, ModelArtifact, Ranges, Tokens
from qexp.config import QuantizationConfig, Task, TranslationTask
from qexp.context import RunContext
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    quant_config: QuantizationConfig | None,
    ranges: Ranges | None,
    tokens: Tokens,
    task: Task,
    cache_bits: int | None,
) -> None:
    """Write the graph with Q/DQ pairs and integer weights, or in FP32 without ``quant_config``.

    ``cache_bits`` are those of a translation's keys and values between steps; None for other tasks.
    """
    import numpy as np

    from qexp.models.inference import load_quantized
    from qexp.models.integer_checkpoint import save_integers
    from qexp.tasks import adapter_for
    from qexp.tasks.exported import export

    model, quantization = load_quantized(encoder, quant_config, ranges, ctx)
    if quantization is not None and not isinstance(task, TranslationTask):
        save_integers(quantization, Graph(work.folder, "").integers)
    model = model.cpu()
    if quantization is not None:
        quantization.export_mode()
    adapter = adapter_for(task)
    batch = adapter.collate(adapter.split(tokens.split(task.train)), np.arange(2), tokens.pad_id)
    with ctx.console.bar(f"export {quant_config.quant.name if quant_config else 'fp32'}", total=1) as advance:
        files = export(model, task, work.folder, batch, cache_bits=cache_bits or 32)
        advance()
    work.write_facts({"files": files, "vocabulary": model.config.vocab_size})


STAGE = Stage(
    StageName.ONNX,
    5,
    Graph,
    run,
    keys={
        "encoder": "encoder",
        "quant_config": "form",
        "ranges": "ranges",
        "tokens": "tokens",
        "task": "task",
        "cache_bits": "cache_bits",
    },
    later=frozenset({"cache_bits"}),
)
