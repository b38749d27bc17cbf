"""A graph in FP32 to one in FP16, for runtimes that compute in the types of the graph."""

from __future__ import annotations

from qexp.artifacts import Graph
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


def run(work: Workplace, graph: Graph, *, rt: Runtime) -> None:
    """Write the same graph with FP16 in place of FP32; inputs, integers and logits keep their types."""
    from qexp.deploy.onnx_half import to_fp16

    to_fp16(graph.file, Graph(work.folder, "").file)
    work.write_facts(graph.facts)


STAGE = Stage("7-half", 1, Graph, run)
