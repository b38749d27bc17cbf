"""A graph in FP32 to one in FP16, for runtimes that compute in the types of the graph."""

from __future__ import annotations

import shutil

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Graph
from qexp.context import Runtime


def run(work: Workplace, graph: Graph, *, rt: Runtime) -> None:
    """Write the same graph with FP16 in place of FP32; inputs, integers and logits keep their types."""
    from qexp.deploy.onnx.fp16 import to_fp16

    for file in graph.folder.glob("*.json"):  # a translator's configuration, and the facts
        shutil.copy(file, work.folder)
    for file in graph.files:
        to_fp16(file, work.folder / file.name)


STAGE = Stage("7-half", 1, Graph, run)
