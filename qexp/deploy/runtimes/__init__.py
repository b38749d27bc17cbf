"""The runtimes that execute an exported graph: one file each, behind :class:`qexp.deploy.engine.Engine`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from qexp.deploy.engine import Engine, Order
from qexp.errors import DeployError

RUNTIMES: dict[str, str] = {
    "onnxruntime": "ONNX Runtime on the CPU",
    "openvino": "OpenVINO on the CPU",
    "tensorrt": "TensorRT on an NVIDIA GPU",
    "tensorrt_rtx": "TensorRT for RTX on an NVIDIA GPU",
    "torch_int8": "PyTorch's own integer products, on a CPU or a GPU",
}
"""What each name of a runtime stands for; its file here has the same name, and a function ``load``."""


def load(runtime: str, order: Order) -> Engine:
    """Make one graph ready to run in one runtime.

    Raises:
        DeployError: the runtime is not known, not installed, has no device, or refuses the graph.
    """
    if runtime not in RUNTIMES:
        raise DeployError(f"runtime {runtime!r} is unknown; allowed are {', '.join(RUNTIMES)}")
    loader: Callable[[Order], Engine] = import_module(f"{__name__}.{runtime}").load
    return loader(order)
