"""The first layer of an engine whose output departs from torch's.

The graph is cut behind one layer after another, each cut becomes an engine of its own in the runtime in
question, and its output is held against what the module of that name puts out in torch. Layers are bisected,
so a dozen engines do for a deep model; that supposes that what departs stays apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexp.artifacts import Graph
from qexp.inspection.bench import Bench, bench_of
from qexp.inspection.runs import folder_of
from qexp.records import Record

if TYPE_CHECKING:
    import onnx

    from qexp.deploy.engine import Batch

ROWS = 8
"""Evaluation rows that are looked at."""
MOST = 0.03
"""Largest difference to torch of a layer that agrees, root mean square over that of torch's output. A sum in
another order moves a value by one step of its grid now and then, which shows as about 0.01 with 8 bits."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A module whose output is a value of the graph."""

    module: str
    """Its name in torch, such as ``bert.encoder.layer.0.output.dense``."""
    value: str
    """Name in the graph."""


@dataclass(frozen=True)
class Departure:
    """What was found in one runtime."""

    run: str
    runtime: str
    module: str | None
    """The first layer that departs; None if all agree."""
    difference: float
    """Of that layer, or the largest of those that were looked at."""
    of_file: float
    """The same with the file computed as it is written, by ONNX Runtime without any optimization."""

    @property
    def departs(self) -> bool:
        """Whether there is such a layer."""
        return self.module is not None

    def __str__(self) -> str:
        where = f"{self.run[:12]} {self.runtime}"
        if self.module is None:
            return f"{where}: all layers agree with torch (within {self.difference:.2g} of their size)"
        whose = (
            "the exported file does too" if self.of_file > MOST else "the exported file does not: the runtime"
        )
        return (
            f"{where}: {self.module} is the first to depart from torch, by {self.difference:.2g} of its "
            f"size; {whose} ({self.of_file:.2g})"
        )


def departures(record: Record, outputs: Path, runtimes: Sequence[str]) -> list[Departure]:
    """Bisect the quantized graph of a run in each runtime.

    Raises:
        StoreError: the run exported nothing, or its artifacts are gone.
        DeployError: a runtime is not there, or refuses the graph.
    """
    import onnx

    graph = onnx.load(Graph(folder_of(record, "7-onnx", outputs), "").file)
    bench = bench_of(record, outputs, None, ROWS, None)
    batch = _batch(bench)
    layers = layers_of(graph)
    torch = _outputs(bench, batch, layers)
    layers = [layer for layer in layers if layer.module in torch]
    with tempfile.TemporaryDirectory() as folder:
        cuts = Cuts(graph, batch, Path(folder), bench.rt.threads)
        as_written = partial(cuts.run, None)
        return [
            bisect(record.key, runtime, layers, torch, partial(cuts.run, runtime), as_written)
            for runtime in runtimes
        ]


def layers_of(graph: onnx.ModelProto) -> list[Layer]:
    """Modules with a bias, in the order of the graph: where it is added, their output begins."""
    stored = {tensor.name for tensor in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        if node.op_type in ("Add", "Gemm", "LayerNormalization"):
            names = [name for name in node.input if name in stored and name.endswith(".bias")]
            found += [
                Layer(name.removesuffix(".bias").removeprefix("model."), node.output[0]) for name in names
            ]
    return found


def bisect(
    run: str,
    runtime: str,
    layers: Sequence[Layer],
    torch: Mapping[str, Array],
    engine: Callable[[Layer], Array],
    file: Callable[[Layer], Array],
) -> Departure:
    """The first layer that departs, by halving; whether the last one does is asked first.

    Args:
        run: Key of the run.
        runtime: Name of the runtime.
        layers: In the order of the graph.
        torch: What each module puts out.
        engine: Computes a layer's output in the runtime.
        file: Computes it as the file is written.
    """
    largest = 0.0

    def difference(index: int) -> float:
        nonlocal largest
        found = apart(engine(layers[index]), torch[layers[index].module])
        largest = max(largest, found)
        return found

    low, high = 0, len(layers) - 1
    if difference(high) <= MOST:
        return Departure(run, runtime, None, largest, 0.0)
    while low < high:
        middle = (low + high) // 2
        if difference(middle) > MOST:
            high = middle
        else:
            low = middle + 1
    of_file = apart(file(layers[low]), torch[layers[low].module])
    return Departure(run, runtime, layers[low].module, difference(low), of_file)


def apart(ours: Array, theirs: Array) -> float:
    """Root mean square of the difference over that of ``theirs``; infinite where one is no number."""
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    size = float(np.sqrt(np.square(theirs, dtype=np.float64).mean()))
    error = float(np.sqrt(np.square(ours.astype(np.float64) - theirs).mean()))
    return error / size if size else (0.0 if error == 0 else float("inf"))


@dataclass(frozen=True)
class Cuts:
    """A graph that is cut behind any of its values, and run up to there."""

    graph: onnx.ModelProto
    batch: Batch
    folder: Path
    threads: int

    def run(self, runtime: str | None, layer: Layer) -> Array:
        """Output of a layer in a runtime, or as the file is written."""
        from qexp.deploy.engine import Order
        from qexp.deploy.engines import load
        from qexp.deploy.engines.onnxruntime import as_written

        path = self.folder / "cut.onnx"
        path.write_bytes(self._cut(layer).SerializeToString())
        order = Order(path, "int8", self.threads, (next(iter(self.batch.values())).shape,))
        engine = as_written(order) if runtime is None else load(runtime, order)
        return engine.run({name: self.batch[name] for name in engine.inputs})

    def _cut(self, layer: Layer) -> onnx.ModelProto:
        import onnx
        from onnx.utils import Extractor

        proto = onnx.ModelProto()
        proto.CopyFrom(self.graph)
        proto.graph.value_info.append(
            onnx.helper.make_tensor_value_info(layer.value, onnx.TensorProto.FLOAT, None)
        )
        inputs = [value.name for value in proto.graph.input]
        cut = Extractor(proto).extract_model(inputs, [layer.value])
        used = {name for node in cut.graph.node for name in node.input}
        kept = [value for value in cut.graph.input if value.name in used]
        del cut.graph.input[:]
        cut.graph.input.extend(kept)
        return cut


def _batch(bench: Bench) -> dict[str, Any]:
    from qexp.lit.families import family_of

    rows, family = bench.rows, family_of(bench.rows.task)
    split = family.split(rows.tokens.split(rows.split))
    batch = family.collate(split, np.arange(min(ROWS, len(split))), rows.tokens.pad_id)
    return {name: tensor.numpy() for name, tensor in batch.items()}


def _outputs(bench: Bench, batch: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, Array]:
    """What the modules of these layers put out in torch, before any quantizer behind them."""
    import torch

    from qexp.lit.inference import runner

    model, found = bench.quantization.model, {}
    wanted = {layer.module for layer in layers}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            found[name] = output.detach().float().cpu().numpy().copy()

        return hook

    handles = [
        module.register_forward_hook(keep(name), prepend=True)
        for name, module in model.named_modules()
        if name in wanted
    ]
    try:
        runner(model, bench.rt)({name: torch.from_numpy(values) for name, values in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    return found
