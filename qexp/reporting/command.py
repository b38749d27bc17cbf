"""Command lines and configuration files that repeat the experiment of a Record."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from qexp.environment import conf_folder
from qexp.reporting.run_view import FLOAT_BITS, RunView, leaves

_BY_KIND = ("calibrator", "finetune", "method", "deploy")
_BY_NAME = ("task", "placement", "budget")
_DEFAULTS = {"scheme": "per_channel", "model": "minilm_l6", "refinement": "none"}
"""Groups whose option a Record does not store; values that differ from these options are given one by one."""
_NOT_REPEATED = (
    "tracker.",
    "machine.threads",
    "machine.checkpoint_seconds",
    "machine.progress",
    "data.source",
)
"""Settings that a rerun decides for itself, or that the option of a group already implies."""


def command_of(run: RunView) -> str:
    """Return the ``python -m qexp task=… …`` command that repeats a run.

    If the Record stores its overrides, they are repeated without those that a rerun decides for itself.
    Otherwise the command has the option of each group and every value that differs from these options.

    Hydra's grammar has no quotes for the globs of ``quant.overrides``, so a glob with a colon or a bracket
    has to go into a file (:func:`overlay_of`).
    """
    if (overrides := run.record.overrides) is not None:
        repeated = (
            override
            for override in overrides
            if not override.lstrip("+~").startswith(("tracker=", *_NOT_REPEATED[:-1]))
        )
        return shell_command(list(repeated))
    options, values = choices_of(run)
    option_values = _option_values(_options(run))
    arguments = [f"{group}={option}" for group, option in options.items()]
    arguments += _quant_arguments(run)
    arguments += [
        f"{'' if path in option_values else '++'}{path}={hydra_value(value)}"
        for path, value in values.items()
    ]
    return shell_command(arguments)


def shell_command(arguments: Sequence[str]) -> str:
    """Return a command line for a shell, in which each argument is quoted once."""
    return " ".join(["python", "-m", "qexp", *map(_shell_quoted, arguments)])


def _shell_quoted(argument: str) -> str:
    """Quote an argument for a shell, in double quotes if it has single ones and is plain otherwise."""
    if "'" in argument and not re.search(r'["$`\\!]', argument):
        return f'"{argument}"'
    return shlex.quote(argument)


def _quant_arguments(run: RunView) -> list[str]:
    weight, activation = run.bits
    floats = min(run.bits) == FLOAT_BITS
    arguments = ["quant=fp32" if floats else f"quant=w{weight}a{activation}"]
    for field in ("quant.weight_format", "quant.activation_format"):
        arguments += [f"{field}={each}" for each in (run.find(field),) if each is not None]
    if (table := run.find("quant.embedding_bits")) is not None:
        arguments.append(f"quant.embedding_bits={table}")
    if overrides := run.find("quant.overrides"):
        arguments += [f"quant.label={run.find('quant.label')}"]
        arguments += [f"quant.overrides={hydra_value(_without_nulls(overrides))}"]
    return arguments


def overlay_of(run: RunView, quant: Mapping[str, Any], header: Sequence[str]) -> str:
    """Return a file for ``--config-name`` that repeats a run with other bit-widths.

    Args:
        run: Run that supplies everything but the bit-widths.
        quant: The ``quant`` section.
        header: Lines of the comment at the top of the file.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    options, values = choices_of(run)
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *above, name = path.split(".")
        section = tree
        for each in above:
            section = section.setdefault(each, {})
        section[name] = value
    defaults = ["config", *({f"override {group}": option} for group, option in options.items()), "_self_"]
    parts = ({"defaults": defaults}, tree, {"quant": dict(quant)})
    texts = [yaml.safe_dump(part, sort_keys=False, width=110, allow_unicode=True) for part in parts if part]
    return "\n".join([*(f"# {line}" for line in header), *texts])


def choices_of(run: RunView) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the options of groups, and by dotted path the values outside ``quant`` that differ from them."""
    options = _options(run)
    option_values = _option_values(options)
    values: dict[str, Any] = {}
    for path, value in leaves(run.record.experiment):
        if path.startswith("data.columns."):
            values.setdefault("data.columns", {})[path.removeprefix("data.columns.")] = value
            continue
        if path.startswith(("quant.", *_NOT_REPEATED)) or (
            path not in option_values and _is_default(path, value)
        ):
            continue
        if path.endswith((".kind", "placement.name", "budget.name", "machine.accelerator")):
            continue
        if path == "data.root" and run.source in ("hub", "sample"):
            continue  # data.source=auto did not use it
        if path not in option_values or option_values[path] != value:
            values[path] = value
    return {group: option for group, option in options.items() if group not in _DEFAULTS}, values


def _option_values(options: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that the options set, by dotted path."""
    values = {
        f"{group}.{path}": value
        for group, option in options.items()
        for path, value in leaves(_yaml(f"{group}/{option}"))
    }
    return values | dict(
        leaves(
            {name: _yaml("config").get(name) for name in ("seed", "calibration", "accept", "tags", "note")}
        )
    )


def _is_default(path: str, value: Any) -> bool:
    """Return whether a value that no file mentions can be left out: it is null, or belongs to the task."""
    return value is None or path.startswith("task.")


def _options(run: RunView) -> dict[str, str]:
    """Return the option of each configuration group, as far as the Record stores it."""
    chosen = {group: run.find(f"{group}.name") for group in _BY_NAME}
    chosen |= {group: run.find(f"{group}.kind") for group in _BY_KIND}
    if chosen["method"] == "none":  # method=auto resolves to it for quant=fp32
        chosen["method"] = "auto"
    if chosen["deploy"] == "engines":  # its options are named after their runtimes
        chosen["deploy"] = run.find("deploy.runtimes", ["auto"])[0]
    if not (conf_folder() / "task" / f"{chosen['task']}.yaml").is_file():
        chosen["task"] = run.find("task.kind")  # a task of the user's own
    chosen |= {"machine": "gpu" if run.find("machine.accelerator") == "gpu" else "cpu", "data": run.source}
    chosen |= _DEFAULTS
    return {group: str(option) for group, option in chosen.items() if option is not None}


def _yaml(name: str) -> Mapping[str, Any]:
    """Load a file of the configuration; without one the result is empty and values are given one by one."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    if not (file := conf_folder() / f"{name}.yaml").is_file():
        return {}
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    return tree if isinstance(tree, dict) else {}


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without_nulls(of) for name, of in value.items() if of is not None}


def hydra_value(value: Any) -> str:
    """Format a value in Hydra's override grammar."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{hydra_value(of)}' for name, of in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, str):
        plain = (
            re.fullmatch(r"[A-Za-z_/.][\w./:+-]*", value)
            and not re.fullmatch(r"[.\d]+(e[+-]?\d+)?", value)
            and value.lower() not in ("null", "true", "false")
        )
        escaped = re.sub(r"\\+(?='|$)", lambda match: match[0] * 2, value)
        return value if plain else "'" + escaped.replace("'", "\\'") + "'"
    return json.dumps(value)
