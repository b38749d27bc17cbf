"""Stage that converts a graph from FP32 to FP16, for runtimes that compute in the types of the graph."""

from __future__ import annotations

import shutil

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import Graph
from qexp.context import RunContext
from qexp.naming import StageName


def run(work: BuildDir, ctx: RunContext, *, graph: Graph) -> None:
    """Write the graph with FP16 in place of FP32; inputs, integers and logits keep their types."""
    from qexp.deploy.onnx.fp16 import to_fp16

    for file in graph.folder.glob("*.json"):  # configuration of a translation model, and the facts
        shutil.copy(file, work.folder)
    for file in graph.files:
        to_fp16(file, work.folder / file.name)


STAGE = Stage(StageName.FP16, 1, Graph, run, keys={"graph": "graph"})
