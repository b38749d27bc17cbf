"""Errors of configuration in words: the field, the value, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from qexp.config import Experiment
from qexp.config.recommended import Recommended

_TAGS = {
    *("none", "ptq", "qat", "control", "full", "onnx", "onnxruntime", "wandb", "tensorboard"),
    *("max", "ema", "percentile", "mse", "entropy", "clip"),
    *("classification", "regression", "question_answering", "translation"),
}
"""Tags of sections, which pydantic puts into the path of a field."""


def explain(error: ValidationError) -> str:
    """Everything that is wrong with an experiment, one line for each field."""
    lines = [_line(problem) for problem in error.errors()]
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} fields are wrong:\n" + "\n".join(f"  {line}" for line in lines)


def unknown_field(path: str) -> str:
    """What to say of a field that does not exist: its neighbours, the nearest one first."""
    *parents, name = path.split(".")
    known = sorted(allowed_fields(parents))
    if not known:
        return f"{path}: no such field; python -m qexp --help lists all groups"
    if name in known:
        group = parents[0]
        return f"{path}: no such field of the {group} that was chosen; another kind of {group} has it"
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {'.'.join([*parents, nearest[0]])}?" if nearest else ""
    return f"{path}: no such field; {'.'.join(parents) or 'an experiment'} has {', '.join(known)}{hint}"


def unknown_option(group: str, option: str, known: Sequence[str], place: str = "", more: str = "") -> str:
    """What to say of an option that a group does not have: those that it has, the nearest one last.

    Args:
        group: The group, such as ``recipe``.
        option: What was asked for.
        known: Options of the group, and of folders below it as ``folder/option``.
        place: Name of the file that asks for it; empty for the command line.
        more: What the group has besides.
    """
    nearest = difflib.get_close_matches(option, known, n=1)
    hint = f"; did you mean {group}={nearest[0]}?" if nearest else ""
    asked = f" (asked for in {place})" if place else ""
    folder = option.rpartition("/")[0]
    near = [name for name in known if name.rpartition("/")[0] == folder] or list(known)
    below = dict.fromkeys(f"{name.partition('/')[0]}/…" for name in known if "/" in name and not folder)
    there = ", ".join([*near, *below, *([more] if more else [])]) or "none"
    return f"{group}={option}{asked}: no file {group}/{option}.yaml; {group} has {there}{hint}"


def allowed_fields(path: Sequence[str]) -> set[str]:
    """Names of the fields of a section; of a tagged section, those of all its kinds."""
    sections: list[Any] = [Experiment, Recommended]
    for name in path:
        if not any(name in section.model_fields for section in sections) and {*path} & {
            "finetune",
            "overrides",
        }:
            continue  # a key: the name of a task, or a glob over sites
        fields = [
            section.model_fields[name].annotation for section in sections if name in section.model_fields
        ]
        sections = [model for annotation in fields for model in _models(annotation)]
    return {field for section in sections for field in section.model_fields}


def _models(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _models(argument)


def _line(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    tagged = path[:2] != ["task", "qat"]  # a field that is called as a tag of another section
    clean = [part for place, part in enumerate(path) if place != 1 or part not in _TAGS or not tagged]
    if problem["type"] == "extra_forbidden":
        return unknown_field(".".join(clean))
    if problem["type"] == "missing":
        return f"{'.'.join(clean)}: is required; set it on the command line or in the group's YAML file"
    message = str(problem["msg"]).removeprefix("Value error, ")
    name = ".".join(clean)
    if not name:
        return message
    value = problem["input"]
    shown = "" if isinstance(value, dict | BaseModel) else f"={value}"
    said = not shown and "; " in message  # checks of whole sections name the field and the next action
    return f"{name}{shown}: {message[0].lower()}{message[1:]}" + ("" if said else f"; change {name}=…")
