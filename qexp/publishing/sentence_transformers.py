"""Files by which sentence-transformers knows a folder, and a graph that its ONNX backend takes.

sentence-transformers 5.7 and 6.2 take them: ``modules.json`` names a transformer, a pooling and a
normalization; ``1_Pooling/config.json`` the pooling; ``sentence_bert_config.json`` how texts are cut; and
``config_sentence_transformers.json`` the similarity. The ONNX backend (optimum) reads the hidden states of
tokens from the output ``last_hidden_state`` and pools them itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from qexp.config import BiEncoderTask
from qexp.naming import HIDDEN, POOLED

_PACKAGE = "sentence_transformers.models"
_MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def write_modules(task: BiEncoderTask, width: int, folder: Path) -> None:
    """Write the files of a folder whose model and tokenizer are in its root.

    Args:
        task: Task with its pooling and its longest text.
        width: Width of the embeddings.
        folder: Folder of the model.
    """
    names = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{_PACKAGE}.{name}"}
        for index, (path, name) in enumerate(names.items())
    ]
    pooling = {"word_embedding_dimension": width} | {
        mode: name == task.pooling for name, mode in _MODES.items()
    }
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": task.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"} | _prompts(task),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _prompts(task: BiEncoderTask) -> dict[str, Any]:
    """Return the prompts of a folder; the one of an embedding is put before every text by itself.

    sentence-transformers' ``encode_query`` and ``encode_document`` take those of a retrieval by their names.
    """
    if not task.prompts:
        return {}
    return {"prompts": task.prompts, "default_prompt_name": "text" if "text" in task.prompts else None}


def with_hidden_states(graph: onnx.ModelProto) -> bool:
    """Make the pooled hidden states the second output of a graph; return whether it pools any."""
    if graph.graph.output[0].name != POOLED:
        return False
    axes = ["batch", "length", graph.graph.output[0].type.tensor_type.shape.dim[-1].dim_value]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(HIDDEN, onnx.TensorProto.FLOAT, axes))
    return True
