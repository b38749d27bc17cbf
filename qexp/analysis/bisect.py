"""The layers of an engine whose outputs depart from torch's.

Each layer is looked at alone: the part of the graph that computes it out of the outputs of other layers
becomes an engine of its own in the runtime in question, is fed what torch computed for these, and is held
against torch's output. So rounding noise does not add up from layer to layer, and a small fault shows where
it is. What only shows in the whole graph is bisected: the graph is cut behind one layer after another.
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
from qexp.analysis.subgraphs import Layer, Parts, layers_of
from qexp.artifacts.types import Graph
from qexp.config import Precision
from qexp.errors import DeployError
from qexp.records.record import Record

if TYPE_CHECKING:
    import onnx

ROWS = 8
"""Evaluation rows that are looked at, of different lengths where there are such."""
TOLD = 5
"""Layers that a message names."""
MOST = 0.03
"""Largest error of the whole graph's output that agrees, root mean square over that of torch's output: noise
adds up over the layers, and a tie that is rounded the other way moves a value by one step of its grid."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Departing:
    """A layer that departs."""

    module: str
    """Its name in torch."""
    closeness: Closeness
    """Of its output."""


@dataclass(frozen=True)
class Departure:
    """What was found in one runtime."""

    run: str
    runtime: str
    measured: Mapping[str, Closeness]
    """Of every layer by module, each computed alone, in the order of the graph."""
    of_file: Closeness | None = None
    """The first layer that departs, as the file is written: by ONNX Runtime without any optimization."""
    whole: Whole | None = None
    """Where no layer departs alone, but the output of the whole graph does."""

    @property
    def layers(self) -> list[Departing]:
        """Those that depart, in the order of the graph."""
        return _departing(self.measured)

    @property
    def departs(self) -> bool:
        """Whether there is anything."""
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
        told = ", ".join(f"{each.module} by {each.closeness}" for each in layers[:TOLD])
        more = f" and {len(layers) - TOLD} more" if len(layers) > TOLD else ""
        verb = "departs" if len(layers) == 1 else "depart"
        whose = (
            "the exported file does too"
            if self.of_file.departs
            else "the exported file does not: the runtime"
        )
        of = "" if len(layers) == 1 else "at the first of them, "
        return f"{where}: {told}{more} {verb} from torch; {of}{whose} ({self.of_file})"


@dataclass(frozen=True)
class Whole:
    """A departure of the whole graph that no layer shows alone."""

    module: str
    """The first layer up to which the graph departs."""
    difference: float
    """Of that layer's output, root mean square over that of torch's."""
    of_file: float
    """The same with the file computed as it is written."""

    def __str__(self) -> str:
        whose = "does too, or noise adds up" if self.of_file > MOST else "does not: the runtime"
        return (
            f"each layer alone agrees with torch; up to {self.module}, the first of which this is so, all "
            f"layers together depart, by {self.difference:.2g} of its size; the exported file {whose} "
            f"({self.of_file:.2g})"
        )


def _departing(measured: Mapping[str, Closeness]) -> list[Departing]:
    return [Departing(module, close) for module, close in measured.items() if close.departs]


def departures(record: Record, outputs: Path, runtimes: Sequence[str]) -> list[Departure]:
    """Look for the layers that depart in the graph of a run, quantized if it is, in each runtime.

    Raises:
        StoreError: the run exported nothing, or its artifacts are gone.
        DeployError: a runtime is not there, or refuses the graph; or it is a translator's.
    """
    reference = Departures.of(record, outputs)
    return [reference.departure(record.key, reference.graph, runtime) for runtime in runtimes]


@dataclass(frozen=True)
class Departures:
    """What the modules of a run put out in torch, for graphs to be held against."""

    graph: onnx.ModelProto
    """That of the run."""
    batch: Mapping[str, Any]
    """A padded batch of evaluation rows, int64 [rows, tokens] by the name of an input."""
    torch: Mapping[str, Array]
    """By module, its output before any quantizer behind it."""
    threads: int
    """CPU cores of an engine."""
    precision: Precision
    """Arithmetic of an engine: ``int8``, or ``fp32`` of a run that quantized nothing."""
    found: dict[tuple[str | None, str, bytes], Closeness] = field(default_factory=dict, repr=False)
    """Earlier results, by runtime, module and digest of the part: graphs with a fault share most parts."""

    @classmethod
    def of(cls, record: Record, outputs: Path) -> Departures:
        """Compute a run's last model, quantized if it is, on a few evaluation rows, on the CPU.

        Raises:
            StoreError: the run exported nothing, an artifact is gone, or the Record is of another version.
            DeployError: the graph is a translator's.
        """
        import onnx

        file = Graph(folder_of(record, "7-onnx", outputs), "").file
        if not file.is_file():
            raise DeployError(
                f"run {record.key[:12]}: has a translator's two graphs; --bisect takes encoders"
            )
        graph, subject = onnx.load(file), exported_model(record, outputs)
        batch = padded_batch(subject.rows, ROWS)
        torch = module_outputs(subject, batch, {layer.module for layer in layers_of(graph)})
        return cls(graph, batch, torch, subject.rt.threads, subject.precision)

    def known(self, graph: onnx.ModelProto) -> list[Layer]:
        """The layers of a graph whose output torch has, in its order.

        Raises:
            DeployError: there are none.
        """
        found = [layer for layer in layers_of(graph) if layer.module in self.torch]
        if not found:
            raise DeployError("graph: no node is named by a module of the model; export it again")
        return found

    def layers(self, graph: onnx.ModelProto, runtime: str | None) -> list[Departing]:
        """The layers of a graph that depart, each computed alone on torch's own inputs, in its order.

        Args:
            graph: The run's, or that with a fault in it; its nodes are named by their modules.
            runtime: Name of a runtime; None computes the graph as it is written, in ONNX Runtime.

        Raises:
            DeployError: the runtime is not there, or refuses a part of the graph.
        """
        return _departing(self.measured(graph, runtime, self.known(graph)))

    def measured(
        self, graph: onnx.ModelProto, runtime: str | None, layers: Sequence[Layer]
    ) -> dict[str, Closeness]:
        """How close each of these layers is, by module; as :meth:`layers`."""
        parts = Parts(graph)
        given = {layer.value: self.torch[layer.module] for layer in self.known(graph)}
        shapes = {value: array.shape for value, array in given.items()}
        return {
            layer.module: self._closeness(parts.part(layer.value, shapes), runtime, layer.module, given)
            for layer in layers
        }

    def departure(self, run: str, graph: onnx.ModelProto, runtime: str) -> Departure:
        """Layer by layer, and the graph as a whole if no layer departs; raises as :meth:`layers`."""
        layers = self.known(graph)
        measured = self.measured(graph, runtime, layers)
        if departing := _departing(measured):
            first = [layer for layer in layers if layer.module == departing[0].module]
            (of_file,) = self.measured(graph, None, first).values()
            return Departure(run, runtime, measured, of_file)
        parts = Parts(graph)
        whole = bisect(
            layers,
            self.torch,
            lambda layer: self._run(parts.part(layer.value, {}), runtime, {}),
            lambda layer: self._run(parts.part(layer.value, {}), None, {}),
        )
        return Departure(run, runtime, measured, whole=whole)

    def _closeness(
        self, part: onnx.ModelProto, runtime: str | None, module: str, given: Mapping[str, Array]
    ) -> Closeness:
        key = runtime, module, hashlib.sha256(part.SerializeToString(deterministic=True)).digest()
        if key not in self.found:
            self.found[key] = closeness(self._run(part, runtime, given), self.torch[module])
        return self.found[key]

    def _run(self, part: onnx.ModelProto, runtime: str | None, given: Mapping[str, Array]) -> Array:
        from qexp.deploy.engine import Order
        from qexp.deploy.runtimes import load
        from qexp.deploy.runtimes.onnxruntime.engine import as_written

        with tempfile.TemporaryDirectory(prefix="qexp-part-") as folder:
            path = Path(folder) / "part.onnx"
            path.write_bytes(part.SerializeToString())
            order = Order(path, self.precision, self.threads, (next(iter(self.batch.values())).shape,))
            engine = as_written(order) if runtime is None else load(runtime, order)
            values = {**self.batch, **given}
            return np.array(engine.run({name: values[name] for name in engine.inputs}))


def bisect(
    layers: Sequence[Layer],
    torch: Mapping[str, Array],
    engine: Callable[[Layer], Array],
    file: Callable[[Layer], Array],
) -> Whole | None:
    """The first layer up to which a graph departs, by halving; None if it does not up to the last one.

    Args:
        layers: In the order of the graph.
        torch: What each module puts out.
        engine: Computes the graph up to a layer in the runtime.
        file: Computes it as the file is written.
    """

    def difference(index: int, run: Callable[[Layer], Array]) -> float:
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
    return Whole(layers[low].module, difference(low, engine), difference(low, file))


def apart(ours: Array, theirs: Array) -> float:
    """Root mean square of the difference over that of ``theirs``; infinite where one is no number."""
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    size = float(np.sqrt(np.square(theirs, dtype=np.float64).mean()))
    error = float(np.sqrt(np.square(ours.astype(np.float64) - theirs).mean()))
    return error / size if size else (0.0 if error == 0 else float("inf"))
