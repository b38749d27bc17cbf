"""4-bit weights as other libraries make them, of an ONNX file or of a torch model: linear layers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Batch = dict[str, torch.Tensor]
NNCF_GROUP = 128
"""Its own default of ``group_size``."""
TORCHAO_GROUP = 32
"""Its own default of ``weight_granularity``."""


def nncf(source: Path, target: Path) -> Path:
    """Compress the weights of an ONNX file in OpenVINO's form, and write its XML and BIN."""
    import nncf as library
    import openvino

    mode = library.CompressWeightsMode.INT4_SYM
    model = openvino.Core().read_model(source)
    found = library.compress_weights(model, mode=mode, group_size=NNCF_GROUP, ratio=1.0)
    openvino.save_model(found, target)
    return target


def openvino_model(file: Path, threads: int) -> Callable[[Batch], torch.Tensor]:
    """Serve a file as OpenVINO does by itself: it quantizes activations beside integer weights, too."""
    import openvino

    properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(file, "CPU", {**properties, "INFERENCE_PRECISION_HINT": "f32"})
    request, names = compiled.create_infer_request(), [port.any_name for port in compiled.inputs]

    def forward(batch: Batch) -> torch.Tensor:
        answer = request.infer({name: batch[name].numpy() for name in names})
        return torch.from_numpy(answer[compiled.output(0)].copy())

    return forward


def modelopt(model: Any) -> Any:
    """Put quantizers of 4 bits in blocks of 128 into linear layers; integers are simulated."""
    import modelopt.torch.quantization as mtq

    return mtq.quantize(model, mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG)


def torchao(model: Any) -> Any:
    """Swap linear layers for 4-bit weights in blocks, and activations of 8 bits per token at run time."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(TORCHAO_GROUP),
    )
    quantize_(model, config)
    return model
