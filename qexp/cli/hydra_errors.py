"""Errors of Hydra and OmegaConf in one line, with the field, what is allowed and what to do."""

from __future__ import annotations

import re

from yaml import YAMLError  # type: ignore[import-untyped, unused-ignore]

from qexp.cli.words import hint_for, width_problem
from qexp.environment import conf_folder


def describe_error(error: Exception) -> str:
    """Return the message of a Hydra or OmegaConf error with the field, what is allowed and what to do."""
    message = str(error).strip()
    if field := re.search(r"Could not override '([\w.]+)'", message):
        from qexp.config.validation_errors import unknown_field

        return unknown_field(field[1])
    if match := re.match(r"You must specify '(\w+)', e.g, .*Available options:\s*(.*)", message, re.DOTALL):
        options = ", ".join(match[2].split())
        return f"{match[1]}=… is missing; name one, such as {match[1]}=mrpc; there are {options}"
    message = message.split("\nConfig search path", 1)[0]
    if match := _NO_OPTION.match(message):
        return _no_option(match)
    if isinstance(error, YAMLError):
        return f"no YAML: {' '.join(message.split())}; correct the file"
    return " ".join(message.split())


_PAIRS = "any pair of 2 to 16 bits, 32 for floating point, such as quant=w8a8 or quant=w5a7"
_MORE = {
    "quant": "and any other pair of 2 to 16 bits, 32 for floating point, such as quant=w5a7",
    "task": "and for rows of your own task=classification data.path=FILE",
}
"""What a group takes besides its options."""
_NO_OPTION = re.compile(
    r"In '(?P<place>[^']+)': Could not (?:find|load) '(?P<group>\w+)/(?P<option>[^']+)'(?P<known>.*)",
    re.DOTALL,
)


def _no_option(match: re.Match[str]) -> str:
    """Return a one-line message about an option that a group does not have."""
    from qexp.config.validation_errors import unknown_option

    group, option, place = match["group"], match["option"], match["place"]
    if group == "quant" and (problem := width_problem(option)):
        return f"quant={option}: {problem}; quant takes {_PAIRS}"
    options = re.findall(r"^\t(\S+)$", match["known"], re.MULTILINE)
    options = options or sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))
    options += sorted(f"{file.parent.name}/{file.stem}" for file in (conf_folder() / group).glob("*/*.yaml"))
    file = "" if place == "config" else place
    return unknown_option(
        group,
        option,
        known=options,
        place=file,
        more=_MORE.get(group, ""),
        hint=hint_for(group, option),
    )
