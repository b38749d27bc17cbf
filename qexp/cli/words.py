"""Words of a command line before Hydra sees them: what they mean, and which of them nothing knows.

Nothing here imports Hydra or pydantic, so that a misspelled word is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qexp.cli.foreign_words import FOREIGN, foreign_word
from qexp.environment import conf_folder
from qexp.errors import ConfigError, nearest_name

FIELDS = ("seed", "gate", "accept", "calibration", "tags", "note")
"""Fields and sections of an experiment that are no groups; a test compares them with the schema."""
LISTS = (*FIELDS, "tracker")
"""Fields, and groups of which several options count together: ``tracker=[wandb,csv]``."""
_ALIASES: Mapping[str, Mapping[str, str]] = {
    "quant": {"int8": "w8a8", "8bit": "w8a8", "8": "w8a8", "float32": "fp32", "float": "fp32", "32": "fp32"},
    "machine": {"cuda": "gpu"},
}
"""Options under a name that people use elsewhere, by group."""
_TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".conll")
_WIDTHS = re.compile(r"w\d+a\d+")
LEAST_BITS, MOST_BITS, FLOAT_BITS = 2, 16, 32
"""Bit-widths of ``quant=wNaM``: from the least to the most, or floating point; those of the schema."""

Options = Mapping[str, Sequence[str]]


def options_of(folders: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Return the options of each group, of ``conf`` and of the user's own folders."""
    found: dict[str, list[str]] = {}
    for root in (conf_folder(), *folders):
        for file in sorted(root.glob("*/**/*.yaml")):
            group, *rest = file.relative_to(root).with_suffix("").parts
            found.setdefault(group, []).append("/".join(rest))
    return found


def meant(word: str, options: Options) -> str:
    """Return the override that a word is taken for: other letters of an option, a folder, a text.

    ``quant=W8A8`` is ``quant=w8a8``, ``model=./mine`` is ``model.name=./mine``, ``data=rows.csv`` is
    ``data.path=rows.csv``, ``tags=a,b`` is ``tags=[a,b]``, and so is ``tracker=a,b``; all else is returned
    unchanged.
    """
    name, sign, value = word.partition("=")
    group = name.lstrip("+")
    if not sign or not value:
        return word
    if group == "note" and value[0] not in "'\"" and value != "null":
        return f"{name}={_as_text(value)}"
    if group == "tags" and value[0] not in "[$" and value != "null":
        return f"{name}=[{value}]"
    if group == "tracker" and "," in value and value[0] not in "[$":
        return f"{name}=[{value}]"
    if group not in options or group == "hydra" or value[0] in "[{$'\"":
        return word
    values = value.split(",")
    if group == "model" and all(_is_checkpoint(each, options["model"]) for each in values):
        return f"model.name={value}"
    if group == "data" and value not in options["data"] and Path(value).suffix in _TABLES:
        return f"data.path={value}"
    return f"{name}={','.join(_option(group, each, options[group]) for each in values)}"


def _option(group: str, value: str, known: Sequence[str]) -> str:
    """Return the option that a value names but for capitals, hyphens and underscores; else the value."""
    if value in known:
        return value
    plain = _plain(value)
    alias = _ALIASES.get(group, {}).get(plain)
    same = [option for option in known if _plain(option) == plain]
    if group == "quant" and _WIDTHS.fullmatch(plain):
        return plain
    return alias or (same[0] if len(same) == 1 else value)


def _plain(text: str) -> str:
    return re.sub(r"[-_ ]", "", text.lower())


def _is_checkpoint(value: str, models: Sequence[str]) -> bool:
    return value not in models and (value.startswith(("/", ".", "~")) or "/" in value or Path(value).is_dir())


def _as_text(value: str) -> str:
    """Quote a text for Hydra, whose grammar would split it at commas and colons."""
    escaped = re.sub(r'(\\*)("|$)', lambda end: 2 * end[1] + ('\\"' if end[2] else ""), value)
    return f'"{escaped}"'


def check_override(word: str, options: Options) -> None:
    """Check that the group or field of an override exists, as far as its first name tells.

    Raises:
        ConfigError: It does not; the message has the word that is meant, or the nearest.
    """
    name, sign, value = word.partition("=")
    path = name.lstrip("+~")
    head = re.split(r"[./@]", path)[0]
    names = sorted({*options, *FIELDS} - {"hydra"})
    if path in FOREIGN or head not in (*names, "hydra"):
        if (here := foreign_word(path, value)) is not None:
            raise ConfigError(f"{word}: no such setting; {here}")
        if not sign and not word.startswith("~"):
            raise ConfigError(f"{word}: not group=option or field=value{_of_group(word, options)}")
        nearest = nearest_name(head, names)
        hint = f"did you mean {word.replace(head, nearest, 1)}? " if nearest else ""
        raise ConfigError(f"{word}: no such group or field; {hint}there are {', '.join(names)}")


def _of_group(word: str, options: Options) -> str:
    """Return a hint to the groups that have a bare word as an option, or a name like it."""
    exact = [f"{group}={word}" for group, known in options.items() if word in known]
    if exact:
        return f"; did you mean {' or '.join(exact)}?"
    pairs = {f"{group}={option}": option for group, known in options.items() for option in known}
    nearest = nearest_name(word, pairs.values())
    near = next((pair for pair, option in pairs.items() if option == nearest), None)
    return f"; did you mean {near}?" if near else "; qexp --help lists the groups"


def unknown_flag(word: str, value: str, known: Iterable[str], options: Options) -> str:
    """Describe an option that no command has: settings are written without dashes.

    Args:
        word: The option, perhaps with ``=`` and a value.
        value: The next word, which may be its value.
        known: All options.
        options: Options of each group of settings.
    """
    name, sign, own = word.partition("=")
    setting = name.lstrip("-").replace("-", "_")
    given = own if sign else value if "=" not in value and not value.startswith("-") else ""
    if (here := foreign_word(setting, given)) is not None:
        return f"{name}: no such option; {here}"
    if setting.split(".")[0] in {*options, *FIELDS} - {"hydra"}:
        return f"{name}: no such option; did you mean {setting}={given or '…'}? It is written without dashes"
    nearest = nearest_name(name, known)
    hint = f"did you mean {nearest}? " if nearest else ""
    return f"{name}: no such option; {hint}settings are written without dashes: field=value; see qexp --help"


def width_problem(option: str) -> str:
    """Return why a name such as ``w1a8`` is no pair of bit-widths; empty for one, and for other names."""
    match = re.fullmatch(r"w(\d+)a(\d+)", _plain(option))
    for what, bits in zip(
        ("weights", "activations"), map(int, match.groups()) if match else (), strict=False
    ):
        if bits < LEAST_BITS:
            return f"{LEAST_BITS} is the least width of {what}"
        if MOST_BITS < bits != FLOAT_BITS:
            return (
                f"{MOST_BITS} is the greatest width of {what}, and {FLOAT_BITS} leaves them in floating point"
            )
    return ""


def hint_for(group: str, option: str) -> str:
    """Return what an unknown option of a group may mean, as a sentence in front of the list; or nothing."""
    if group == "quant" and _plain(option) in ("int4", "4", "4bit", "nf4"):
        return "4 bits are quant=w4a8 (activations of 8), w4a16 or w4a32 (weights alone)"
    if group == "model":
        return f"model.name={option} would take a name on the hub or a folder"
    if group == "data":
        return f"data.path={option} would take a file or folder of your own"
    return ""
