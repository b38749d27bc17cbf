"""Messages for invalid configurations: the field, its value, what is allowed, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from qexp.config import Experiment
from qexp.config.recommended import YamlDefaults

_TAGS = {
    *("none", "ptq", "qat", "control", "full", "onnx", "onnxruntime", "wandb", "tensorboard"),
    *("max", "ema", "percentile", "mse", "entropy", "clip"),
    *("classification", "regression", "question_answering", "translation", "multi_label", "embedding"),
    *("token_classification", "retrieval", "reranking"),
}
"""Tags of sections, which pydantic inserts into the path of a field."""
_BRANCH = re.compile(r"(constrained-|literal\[|tuple\[|list\[|dict\[).*|str|int|float|bool")
"""What pydantic puts behind the path of a field of several types, for each of them."""


def explain(error: ValidationError) -> str:
    """Describe all errors of an experiment, one line for each field."""
    fields: dict[tuple[str, ...], list[Any]] = {}
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        branch = len(path) > 1 and _BRANCH.fullmatch(path[-1])
        fields.setdefault(path[:-1] if branch else path, []).append(problem)
    lines = [_line({**found[0], "loc": path, "msg": _either(found)}) for path, found in fields.items()]
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} fields are wrong:\n" + "\n".join(f"  {line}" for line in lines)


def _either(problems: Sequence[Any]) -> str:
    """Return what is wrong with a field, of which each type that it may have complains."""
    messages = [str(each["msg"]) for each in problems]
    return " or ".join([messages[0], *(each.removeprefix("Input ") for each in messages[1:])])


def unknown_field(path: str) -> str:
    """Describe a field that does not exist: the fields of its section, and the most similar one."""
    *parents, name = path.split(".")
    names = sorted(allowed_fields(parents))
    if not names:
        return f"{path}: no such field; python -m qexp --help lists all groups"
    if name in names:
        group = parents[0]
        return f"{path}: no such field of the {group} that was chosen; {_kinds_with(path)} has it"
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {'.'.join([*parents, nearest[0]])}? " if nearest else ""
    return f"{path}: no such field; {hint}{'.'.join(parents) or 'an experiment'} has {', '.join(names)}"


def _kinds_with(path: str) -> str:
    """Return the choices of a group whose section has a field, such as ``calibrator=percentile``."""
    group, *below = path.split(".")
    kinds = [
        str(kind)
        for section in _models(Experiment.model_fields[group].annotation)
        for kind in get_args(
            section.model_fields["kind"].annotation if "kind" in section.model_fields else None
        )
        if _reaches(section, below)
    ]
    return " or ".join(f"{group}={kind}" for kind in kinds) or f"another kind of {group}"


def _reaches(section: Any, path: Sequence[str]) -> bool:
    """Return whether a section has a field at a path."""
    name, *below = path
    if name not in section.model_fields:
        return False
    return not below or any(_reaches(each, below) for each in _models(section.model_fields[name].annotation))


def unknown_option(
    group: str, option: str, known: Sequence[str], *, place: str = "", more: str = "", hint: str = ""
) -> str:
    """Describe an option that a group does not have: the most similar one, and then all, similar ones first.

    Args:
        group: Name of the group, such as ``recipe``.
        option: Requested option.
        known: Options of the group, and of its subfolders as ``folder/option``.
        place: Name of the file that requests the option; empty for the command line.
        more: Description of further options of the group.
        hint: What the option may mean instead.
    """
    nearest = difflib.get_close_matches(option, known, n=1)
    means = [*(f"did you mean {group}={each}?" for each in nearest), *([f"{hint};"] if hint else [])]
    origin = f" (asked for in {place})" if place else ""
    folder = option.rpartition("/")[0]
    siblings = [name for name in known if name.rpartition("/")[0] == folder] or list(known)
    alike = difflib.get_close_matches(option, siblings, n=3)
    siblings = [*alike, *(name for name in siblings if name not in alike)]
    folders = dict.fromkeys(f"{name.partition('/')[0]}/…" for name in known if "/" in name and not folder)
    available = ", ".join([*siblings, *folders, *([more] if more else [])]) or "none"
    return f"{group}={option}{origin}: no such option; {' '.join([*means, f'{group} has {available}'])}"


def allowed_fields(path: Sequence[str]) -> set[str]:
    """Return the names of the fields of a section; for a tagged section, of all its kinds."""
    sections: list[Any] = [Experiment, YamlDefaults]
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
    tagged = path[:2] != ["task", "qat"]  # task.qat is a field, although its name is a tag, too
    clean = [part for place, part in enumerate(path) if place != 1 or part not in _TAGS or not tagged]
    if problem["type"] == "extra_forbidden":
        return unknown_field(".".join(clean))
    if problem["type"] == "model_type" and clean[:2] == ["model", "finetune"]:
        return (
            f"{'.'.join(clean)}: no name of a task; model.finetune holds hyperparameters by task, or under "
            "default for all tasks, such as model.finetune.default.learning_rate"
        )
    if problem["type"] == "missing":
        return f"{'.'.join(clean)}: is required; set it on the command line or in the group's YAML file"
    message = str(problem["msg"]).removeprefix("Value error, ")
    name = ".".join(clean)
    if not name:
        return message
    value = problem["input"]
    shown = "" if isinstance(value, dict | BaseModel) else f"={value}"
    complete = not shown and "; " in message  # checks of whole sections name the field and the next action
    return f"{name}{shown}: {message[0].lower()}{message[1:]}" + ("" if complete else f"; change {name}=…")
