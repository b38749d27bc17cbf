"""Functions that compute the logits of rows with a model of a run: in torch, or in another runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qexp.analysis.run_models import StoredModel, graph_of
from qexp.artifacts.types import Graph
from qexp.config import Precision, RuntimeName, Task, TranslationTask
from qexp.context import RunContext
from qexp.data.batches import ArrayForwardFn
from qexp.deploy.engine import Engine
from qexp.errors import ModelError
from qexp.pipeline.deployment import graph_for_engine
from qexp.prediction.engine_logits import array_run
from qexp.tasks import adapter_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qexp.data.microbatches import Batch
    from qexp.models.published import PublishedModel
    from qexp.tasks.base import ForwardFn


def torch_run(model: StoredModel, ctx: RunContext) -> ForwardFn:
    """Return a function that computes logits in torch, with the model as the run evaluated it."""
    from qexp.models.inference import load_quantized

    loaded, _ = load_quantized(model.encoder, model.quant_config, model.ranges, ctx)
    return _torch_runner(model.task, loaded, ctx)


def published_run(model: PublishedModel, ctx: RunContext) -> ForwardFn:
    """Return a function that computes logits in torch, with the model of a published folder."""
    return _torch_runner(model.task, model.load(ctx), ctx)


def _torch_runner(task: Task, loaded: PreTrainedModel, ctx: RunContext) -> ForwardFn:
    """Return the function of a model, which refuses rows that are longer than the model has positions.

    The run's own rows may all have been shorter, so that nothing was wrong with its ``task.max_length``.
    """
    from qexp.tasks.fit import positions

    run, places = adapter_for(task).runner(loaded, ctx), positions(loaded)
    if places is None or isinstance(task, TranslationTask):
        return run

    def checked(batch: Batch) -> Any:
        if (length := batch["input_ids"].shape[1]) > places:
            raise ModelError(
                f"a row of {length} tokens: the model has positions for {places}; shorten the row, or run "
                f"again with task.max_length={places}, which cuts such rows"
            )
        return run(batch)

    return checked


def engine_run(
    model: StoredModel, runtime: RuntimeName, precision: Precision, batch_size: int, ctx: RunContext
) -> ForwardFn:
    """Return a function that computes logits in one of :data:`qexp.config.RUNTIMES`.

    Raises:
        DeployError: The model has no graph, or the runtime is not installed or rejects the graph.
    """
    from qexp.tasks.exported import exported_run

    graph = _graph(model, runtime, precision, ctx)
    return exported_run(
        model.task, graph.folder, _loader(model, runtime, precision, batch_size=batch_size, ctx=ctx)
    )


def light_engine(
    model: StoredModel, runtime: RuntimeName, precision: Precision, batch_size: int, ctx: RunContext
) -> ArrayForwardFn:
    """Return a function as :func:`engine_run` does, from arrays to arrays, which does not import torch.

    Raises:
        DeployError: As in :func:`engine_run`.
    """
    load = _loader(model, runtime, precision, batch_size=batch_size, ctx=ctx)
    return array_run(_graph(model, runtime, precision, ctx), load)


def _graph(model: StoredModel, runtime: RuntimeName, precision: Precision, ctx: RunContext) -> Graph:
    graph = graph_of(model, ctx)
    return graph_for_engine(runtime, precision, {"fp32": graph, "int8": graph}, ctx)


def _loader(
    model: StoredModel, runtime: RuntimeName, precision: Precision, *, batch_size: int, ctx: RunContext
) -> Callable[[Path], Engine]:
    from qexp.deploy.engine import EngineSpec
    from qexp.deploy.runtimes import load

    shapes = ((batch_size, model.task.max_length),)
    return lambda file: load(
        runtime, EngineSpec(file, precision, threads=ctx.threads, shapes=shapes, cache=ctx.engines)
    )
