"""Values of settings that were left open, from other sections of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qexp.config.base import FLOAT_BITS
from qexp.config.cpu import resolve_cpu
from qexp.config.deploy import BEAMS
from qexp.config.embedding import BI_ENCODERS
from qexp.config.number_formats import IN_BLOCKS
from qexp.config.own_rows import resolve_own_rows
from qexp.config.recommended import YamlDefaults
from qexp.config.training import RANGE_RATE, Control, Qat

HOLDOUT = 0.05
"""Share of the train split that chooses the weights to keep, where a setting needs one and none is given."""


def resolve_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Replace open settings by values that follow from other sections.

    A task of one's own rows takes its name and columns from ``data`` (:mod:`qexp.config.own_rows`). A null
    ``model.revision`` becomes that of ``model.revisions`` for the name of the model, and null prefixes of an
    embedding or a retrieval become ``model.prompts``. ``finetune: auto`` becomes ``full``, or ``none`` for
    these two. ``finetune`` takes null fields from ``model.finetune[task]``, ``model.finetune.default`` and
    ``task.finetune``, in this order, and ``method`` from ``task.qat``; a field that is still null gets its
    default. ``finetune.holdout`` becomes :data:`HOLDOUT` where ``patience`` or ``average_of=best`` needs it.
    ``method: auto`` becomes ``qat``, or ``none`` with FP32; ``controlled`` becomes ``qat``, or
    ``control`` with FP32. An embedding or a retrieval is distilled from logits where nothing is chosen, and
    never from labels; a reranking is, too, where nothing is chosen. ``deploy: auto`` becomes ``engines``, or
    ``none`` for formats of floats in blocks; its searches of a translation become 1 and 5 beams, and
    ``deploy.cpu: auto`` the CPU at hand, by which weights may get 7 bits (:mod:`qexp.config.cpu`).
    A resolved tree is returned unchanged.

    Raises:
        ValueError: A recommended field does not exist (pydantic's error), or an embedding or a retrieval
            is fine-tuned.
    """
    resolved = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    if isinstance(resolved.get("task"), dict) and isinstance(resolved.get("data", {}), dict):
        resolve_own_rows(resolved["task"], resolved.setdefault("data", {}))
    if all(isinstance(resolved.get(key), dict) for key in ("task", "model", "finetune", "method")):
        YamlDefaults.check(resolved["task"], resolved["model"])
        _resolve_revision(resolved["model"])
        _resolve_prompts(resolved)
        _resolve_finetune(resolved)
        _resolve_method(resolved)
    if all(isinstance(resolved.get(key), dict) for key in ("task", "deploy")):
        _resolve_deploy(resolved)
        resolve_cpu(resolved)
    return resolved


def _resolve_revision(model: dict[str, Any]) -> None:
    """Set an open revision to the one that the model's file has for the name that is used."""
    revisions = model.pop("revisions", None) or {}
    if model.get("revision") is None and model.get("name") in revisions:
        model["revision"] = revisions[model["name"]]


_PREFIXES: Mapping[str, Mapping[str, str]] = {
    "embedding": {"prefix": "text"},
    "retrieval": {"query_prefix": "query", "document_prefix": "document"},
}
"""By kind of task, the fields that a prompt of the model fills, and the prompt's name."""


def _resolve_prompts(tree: dict[str, Any]) -> None:
    """Set prefixes that are null to the prompts of the model, or to none."""
    task, prompts = tree["task"], tree["model"].pop("prompts", None) or {}
    for field, name in _PREFIXES.get(str(task.get("kind")), {}).items():
        if task.get(field) is None:
            task[field] = prompts.get(name) or ""


def _resolve_finetune(tree: dict[str, Any]) -> None:
    task_defaults = tree["task"].pop("finetune", None) or {}
    model_defaults = tree["model"].pop("finetune", None) or {}
    if tree["finetune"].get("kind") == "auto":
        kind = "none" if tree["task"].get("kind") in BI_ENCODERS else "full"
        tree["finetune"] = {**tree["finetune"], "kind": kind}
    elif tree["finetune"].get("kind") == "full" and tree["task"].get("kind") in BI_ENCODERS:
        raise ValueError(
            f"finetune=full with task={tree['task'].get('name')}: the only loss of vectors is "
            "the distance to the FP32 model; use finetune=none, with model.name=… of a checkpoint that "
            "embeds texts already"
        )
    if tree["finetune"].get("kind") == "none":
        tree["finetune"] = {field: value for field, value in tree["finetune"].items() if value is not None}
        return
    for source in (
        model_defaults.get(tree["task"].get("name")),
        model_defaults.get("default"),
        task_defaults,
    ):
        _fill(tree["finetune"], _sized(tree["finetune"], source or {}))
    chosen = tree["finetune"]
    if chosen.get("holdout") is None and (chosen.get("patience") or chosen.get("average_of") == "best"):
        chosen["holdout"] = HOLDOUT
    tree["finetune"] = {field: value for field, value in tree["finetune"].items() if value is not None}


def _sized(section: Mapping[str, Any], source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the source without sizes of batches where the section has one, in rows or in tokens."""
    sizes = ("batch_size", "batch_tokens")
    if all(section.get(field) is None for field in sizes):
        return source
    return {field: value for field, value in source.items() if field not in sizes}


def _fill(section: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Set fields that are null or absent to the values of the source."""
    for field, value in source.items():
        if section.get(field) is None:
            section[field] = value


def _resolve_deploy(tree: dict[str, Any]) -> None:
    if tree["deploy"].get("kind") == "auto":
        quant = tree["quant"] if isinstance(tree.get("quant"), dict) else {}
        formats = {quant.get("weight_format"), quant.get("activation_format")}
        exported = not formats & {*IN_BLOCKS}
        tree["deploy"] = {**tree["deploy"], "kind": "engines"} if exported else {"kind": "none"}
    if tree["task"].get("kind") == "translation":
        kind, tree["deploy"] = tree["deploy"].get("kind"), {**tree["deploy"]}
        _fill(tree["deploy"], {"cache_bits": 32} if kind in ("engines", "onnx") else {})
        _fill(tree["deploy"], {"beams": [*BEAMS]} if kind == "engines" else {})


def _without_quantizers(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method that replaces ``auto`` or ``controlled`` with FP32."""
    if method["kind"] == "auto":
        return {"kind": "none"}
    qat_fields = set(Qat.model_fields) - set(Control.model_fields)
    return {field: value for field, value in method.items() if field not in qat_fields} | {"kind": "control"}


def _without_labels(distillation: Any) -> Any:
    """Return the distillation of an embedding: labels, at their default weight, get 0, and logits 1."""
    plan = dict(distillation) if isinstance(distillation, Mapping) else {}
    if plan.get("labels", 1.0) != 1.0:
        return distillation
    chosen = any(plan.get(term) for term in ("logits", "hidden", "attention", "similarity"))
    return plan | {"labels": 0.0} | ({} if chosen else {"logits": 1.0})


def _of_reranking(distillation: Any) -> Any:
    """Return the distillation of a reranking: logits alone where no term is chosen, else what is chosen."""
    plan = dict(distillation) if isinstance(distillation, Mapping) else {}
    chosen = any(plan.get(term) for term in ("logits", "hidden", "attention"))
    return distillation if chosen else _without_labels(distillation)


def _resolve_method(tree: dict[str, Any]) -> None:
    """Resolve the method from numbers only; other values are left to the validation of the fields."""
    quant = tree.get("quant")
    widths = quant if isinstance(quant, dict) else {}
    bits = [widths.get(field, 8) for field in ("weight_bits", "activation_bits")]
    method, rate = tree["method"], tree["finetune"].get("learning_rate", 4e-5)
    task_defaults = tree["task"].pop("qat", None) or {}
    if method.get("kind") in ("auto", "controlled"):
        unquantized = all(width == FLOAT_BITS for width in bits)
        tree["method"] = method = _without_quantizers(method) if unquantized else {**method, "kind": "qat"}
    if method.get("kind") not in ("qat", "control"):
        return
    _fill(method, task_defaults)
    if tree["task"].get("kind") in BI_ENCODERS:
        method["distillation"] = _without_labels(method.get("distillation"))
    if tree["task"].get("kind") == "reranking":
        method["distillation"] = _of_reranking(method.get("distillation"))
    if method.get("epochs") is None:
        method.pop("epochs", None)
    if method.get("learning_rate") is None and isinstance(rate, int | float):
        goes_on = method.get("schedule") == "continued"
        method["learning_rate"] = rate if goes_on else rate / 2
    rates = isinstance(method.get("learning_rate"), int | float) and method.get("kind") == "qat"
    if rates and method.get("range_learning_rate") is None:
        ratio = 1 if method.get("range_parameters") == "ends" else RANGE_RATE
        method["range_learning_rate"] = ratio * method["learning_rate"]
