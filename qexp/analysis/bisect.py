"""Search for the layers of an engine whose outputs diverge from torch's.

Each layer is examined alone: the part of the graph that computes it from the outputs of other layers becomes
a separate engine in the runtime, receives torch's values for these outputs, and is compared with torch's
output. So rounding noise does not accumulate over layers, and a small fault is located exactly. A divergence
that only the whole graph shows is bisected: the graph is cut behind one layer after another.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexp.analysis.closeness import Closeness, closeness
from qexp.analysis.find_run import folder_of
from qexp.analysis.module_outputs import exported_model, module_outputs, padded_batch
from qexp.analysis.subgraphs import GraphLayer, Subgraphs, layers_of
from qexp.artifacts.types import Graph
from qexp.config import Precision
from qexp.errors import DeployError
from qexp.naming import StageName
from qexp.records.record import Record

if TYPE_CHECKING:
    import onnx

ROWS = 8
"""Number of evaluation rows in the batch, of different lengths if possible."""
MODULES_SHOWN = 5
"""Number of layers that a message names."""
MOST = 0.03
"""Largest error of the output of a whole graph that agrees with torch: the root mean square, divided by that
of torch's output. Noise accumulates over layers, and a tie that is rounded the other way moves a value by one
step of its grid."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class DivergingLayer:
    """Layer whose output diverges from torch's."""

    module: str
    """Name of the module in torch."""
    closeness: Closeness
    """Errors of its output."""


@dataclass(frozen=True)
class Divergence:
    """Result of the search in one runtime."""

    run: str
    runtime: str
    measured: Mapping[str, Closeness]
    """Errors of every layer by module, each computed alone, in the order of the graph."""
    of_file: Closeness | None = None
    """Errors of the first diverging layer if the file is executed as written: by ONNX Runtime without any
    optimization."""
    whole: GraphDivergence | None = None
    """Divergence of the whole graph, if no layer diverges alone."""

    @property
    def layers(self) -> list[DivergingLayer]:
        """Diverging layers, in the order of the graph."""
        return _departing(self.measured)

    @property
    def diverges(self) -> bool:
        """Whether a layer or the whole graph diverges."""
        return bool(self.layers) or self.whole is not None

    def __str__(self) -> str:
        where, layers = f"{self.run[:12]} {self.runtime}", self.layers
        if self.whole is not None:
            return f"{where}: {self.whole}"
        if not layers or self.of_file is None:
            largest = max(each.typical for each in self.measured.values())
            return (
                f"{where}: all layers agree with torch ({len(self.measured)}, each on torch's own inputs, "
                f"within {largest:.2g} of the size of each channel)"
            )
        shown = ", ".join(f"{each.module} by {each.closeness}" for each in layers[:MODULES_SHOWN])
        more = f" and {len(layers) - MODULES_SHOWN} more" if len(layers) > MODULES_SHOWN else ""
        verb = "departs" if len(layers) == 1 else "depart"
        whose = (
            "the exported file does too"
            if self.of_file.diverges
            else "the exported file does not: the runtime"
        )
        of = "" if len(layers) == 1 else "at the first of them, "
        return f"{where}: {shown}{more} {verb} from torch; {of}{whose} ({self.of_file})"


@dataclass(frozen=True)
class GraphDivergence:
    """Divergence of the whole graph that no layer shows alone."""

    module: str
    """First layer up to which the graph diverges."""
    difference: float
    """Root mean square error of that layer's output, divided by the root mean square of torch's."""
    of_file: float
    """The same error if the file is executed as written."""

    def __str__(self) -> str:
        whose = "does too, or noise adds up" if self.of_file > MOST else "does not: the runtime"
        return (
            f"each layer alone agrees with torch; up to {self.module}, the first of which this is so, all "
            f"layers together depart, by {self.difference:.2g} of its size; the exported file {whose} "
            f"({self.of_file:.2g})"
        )


def _departing(measured: Mapping[str, Closeness]) -> list[DivergingLayer]:
    return [DivergingLayer(module, close) for module, close in measured.items() if close.diverges]


def divergences(record: Record, outputs: Path, runtimes: Sequence[str]) -> list[Divergence]:
    """Search the exported graph of a run for diverging layers in each runtime.

    Raises:
        StoreError: If the run exported nothing, or its artifacts are missing.
        DeployError: If a runtime is not installed or refuses the graph, or the model is a translator.
    """
    reference = DivergenceFinder.of(record, outputs)
    return [reference.departure(record.key, reference.graph, runtime) for runtime in runtimes]


@dataclass(frozen=True)
class DivergenceFinder:
    """Comparison of graphs with the outputs of a run's modules in torch."""

    graph: onnx.ModelProto
    """Exported graph of the run."""
    batch: Mapping[str, Any]
    """Padded batch of evaluation rows, int64 [rows, tokens] by input name."""
    torch: Mapping[str, Array]
    """Output of each module in torch, before any output quantizer."""
    threads: int
    """Number of CPU threads of an engine."""
    precision: Precision
    """Precision of an engine: ``int8``, or ``fp32`` for a run that quantized nothing."""
    found: dict[tuple[str | None, str, bytes], Closeness] = field(default_factory=dict, repr=False)
    """Cached results by runtime, module and digest of the part: graphs with a fault share most parts."""

    @classmethod
    def of(cls, record: Record, outputs: Path) -> DivergenceFinder:
        """Run the last model of a run, quantized if it has one, on a few evaluation rows on the CPU.

        Raises:
            StoreError: If the run exported nothing, an artifact is missing, or another version wrote the
                Record.
            DeployError: If the model is a translator.
        """
        from qexp.deploy.onnx.io import read

        file = Graph(folder_of(record, StageName.ONNX, outputs), "").file
        if not file.is_file():
            raise DeployError(
                f"run {record.key[:12]}: has a translator's two graphs; --bisect takes encoders"
            )
        graph, subject = read(file), exported_model(record, outputs)
        batch = padded_batch(subject.rows, ROWS)
        torch = module_outputs(subject, batch, {layer.module for layer in layers_of(graph)})
        return cls(graph, batch, torch, threads=subject.ctx.threads, precision=subject.precision)

    def known(self, graph: onnx.ModelProto) -> list[GraphLayer]:
        """Return the layers of a graph for which torch's output is available, in the order of the graph.

        Raises:
            DeployError: If there are none.
        """
        layers = [layer for layer in layers_of(graph) if layer.module in self.torch]
        if not layers:
            raise DeployError("graph: no node is named by a module of the model; export it again")
        return layers

    def layers(self, graph: onnx.ModelProto, runtime: str | None) -> list[DivergingLayer]:
        """Return the diverging layers of a graph in its order, each computed alone on torch's own inputs.

        Args:
            graph: Graph of the run, or a copy with a fault; its nodes are named by their modules.
            runtime: Name of a runtime; None executes the graph as written, in ONNX Runtime.

        Raises:
            DeployError: If the runtime is not installed, or refuses a part of the graph.
        """
        return _departing(self.measured(graph, runtime, self.known(graph)))

    def measured(
        self, graph: onnx.ModelProto, runtime: str | None, layers: Sequence[GraphLayer]
    ) -> dict[str, Closeness]:
        """Return the errors of the given layers by module; arguments are those of :meth:`layers`."""
        parts = Subgraphs(graph)
        given = {layer.value: self.torch[layer.module] for layer in self.known(graph)}
        shapes = {value: array.shape for value, array in given.items()}
        return {
            layer.module: self._closeness(parts.part(layer.value, shapes), runtime, layer.module, given)
            for layer in layers
        }

    def departure(self, run: str, graph: onnx.ModelProto, runtime: str) -> Divergence:
        """Compare layer by layer, and the whole graph if no layer diverges; raises as :meth:`layers`."""
        layers = self.known(graph)
        measured = self.measured(graph, runtime, layers)
        if departing := _departing(measured):
            first = [layer for layer in layers if layer.module == departing[0].module]
            (of_file,) = self.measured(graph, None, first).values()
            return Divergence(run, runtime, measured, of_file)
        parts = Subgraphs(graph)
        whole = bisect(
            layers,
            self.torch,
            lambda layer: self._run(parts.part(layer.value, {}), runtime, {}),
            lambda layer: self._run(parts.part(layer.value, {}), None, {}),
        )
        return Divergence(run, runtime, measured, whole=whole)

    def _closeness(
        self, part: onnx.ModelProto, runtime: str | None, module: str, given: Mapping[str, Array]
    ) -> Closeness:
        key = runtime, module, hashlib.sha256(part.SerializeToString(deterministic=True)).digest()
        if key not in self.found:
            self.found[key] = closeness(self._run(part, runtime, given), self.torch[module])
        return self.found[key]

    def _run(self, part: onnx.ModelProto, runtime: str | None, given: Mapping[str, Array]) -> Array:
        from qexp.deploy.engine import EngineSpec
        from qexp.deploy.runtimes import load
        from qexp.deploy.runtimes.onnxruntime.engine import as_written

        with tempfile.TemporaryDirectory(prefix="qexp-part-") as folder:
            path = Path(folder) / "part.onnx"
            path.write_bytes(part.SerializeToString())
            spec = EngineSpec(path, self.precision, self.threads, (next(iter(self.batch.values())).shape,))
            engine = as_written(spec) if runtime is None else load(runtime, spec)
            values = {**self.batch, **given}
            return np.array(engine.run({name: values[name] for name in engine.inputs}))


def bisect(
    layers: Sequence[GraphLayer],
    torch: Mapping[str, Array],
    engine: Callable[[GraphLayer], Array],
    file: Callable[[GraphLayer], Array],
) -> GraphDivergence | None:
    """Bisect for the first layer up to which a graph diverges; None if its last layer agrees with torch.

    Args:
        layers: Layers in the order of the graph.
        torch: Output of each module in torch.
        engine: Function that computes the graph up to a layer in the runtime.
        file: Function that computes the graph up to a layer as the file is written.
    """

    def difference(index: int, run: Callable[[GraphLayer], Array]) -> float:
        return apart(run(layers[index]), torch[layers[index].module])

    low, high = 0, len(layers) - 1
    if difference(high, engine) <= MOST:
        return None
    while low < high:
        middle = (low + high) // 2
        if difference(middle, engine) > MOST:
            high = middle
        else:
            low = middle + 1
    return GraphDivergence(layers[low].module, difference(low, engine), difference(low, file))


def apart(candidate: Array, reference: Array) -> float:
    """Return the RMS of the difference divided by that of ``reference``; infinite where not finite."""
    if not (np.isfinite(candidate).all() and np.isfinite(reference).all()):
        return float("inf")
    size = float(np.sqrt(np.square(reference, dtype=np.float64).mean()))
    error = float(np.sqrt(np.square(candidate.astype(np.float64) - reference).mean()))
    return error / size if size else (0.0 if error == 0 else float("inf"))
