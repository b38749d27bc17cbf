"""The command line that asks for the experiment of a Record again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qexp.reporting.run_view import FLOAT_BITS, Run, leaves

_BY_KIND = ("calibrator", "finetune", "method", "deploy")
_BY_NAME = ("task", "placement", "budget")
_DEFAULTS = {"scheme": "per_channel", "model": "minilm_l6", "refinement": "none"}
"""Groups of which nothing tells the option: their values are spelled out."""
_HERE = ("tracker.", "machine.threads", "machine.checkpoint_seconds", "machine.progress", "data.source")
"""What a rerun elsewhere decides for itself, or what a group's word says already."""


def command_of(run: Run) -> str:
    """``python -m qexp task=… …``: groups by their options, and every value that these do not give.

    Hydra's grammar has no quotes for the globs of overrides: one with a colon or a bracket goes into a file,
    see :func:`overlay_of`.
    """
    options, values = choices_of(run)
    given = _given(_options(run))
    words = [f"{group}={option}" for group, option in options.items()]
    words += _quant_words(run)
    words += [f"{'' if path in given else '++'}{path}={_word(value)}" for path, value in values.items()]
    return shlex.join(["python", "-m", "qexp", *words])


def _quant_words(run: Run) -> list[str]:
    weight, activation = run.bits
    floats = min(run.bits) == FLOAT_BITS
    words = ["quant=fp32" if floats else f"quant=w{weight}a{activation}"]
    if (table := run.find("quant.embedding_bits")) is not None:
        words.append(f"quant.embedding_bits={table}")
    if overrides := run.find("quant.overrides"):
        words += [f"quant.label={run.find('quant.label')}", f"quant.overrides={_word(overrides)}"]
    return words


def overlay_of(run: Run, quant: Mapping[str, Any], header: Sequence[str]) -> str:
    """A file for ``--config-name`` that asks for the run again, but for its bits.

    Args:
        run: what else is asked for.
        quant: the section of that name.
        header: lines of a comment.
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


def choices_of(run: Run) -> tuple[dict[str, str], dict[str, Any]]:
    """Options of groups, and by dotted path every value beside ``quant`` that these do not give."""
    options = _options(run)
    given = _given(options)
    values = {}
    for path, value in leaves(run.record.experiment):
        if path.startswith(("quant.", *_HERE)) or (path not in given and _is_default(path, value)):
            continue
        if path.endswith((".kind", "placement.name", "budget.name", "machine.accelerator")):
            continue
        if path == "data.root" and run.source in ("hub", "sample"):
            continue  # data.source=auto passed over it
        if path not in given or given[path] != value:
            values[path] = value
    return {group: option for group, option in options.items() if group not in _DEFAULTS}, values


def _given(options: Mapping[str, str]) -> dict[str, Any]:
    """Values of the options, by dotted path."""
    found = {
        f"{group}.{path}": value
        for group, option in options.items()
        for path, value in leaves(_yaml(f"{group}/{option}"))
    }
    return found | dict(leaves({name: _yaml("config").get(name) for name in ("seed", "calibration")}))


def _is_default(path: str, value: Any) -> bool:
    """Whether a value that no file mentions goes without saying: it is null, or the task's own."""
    return value is None or path.startswith("task.")


def _options(run: Run) -> dict[str, str]:
    """Option of each configuration group, as far as a Record tells it."""
    chosen = {group: run.find(f"{group}.name") for group in _BY_NAME}
    chosen |= {group: run.find(f"{group}.kind") for group in _BY_KIND}
    if chosen["method"] == "none":  # what method=auto makes of quant=fp32
        chosen["method"] = "auto"
    if chosen["deploy"] == "engines":  # its options are named by their runtimes
        chosen["deploy"] = run.find("deploy.runtimes", ["auto"])[0]
    chosen |= {"machine": "gpu" if run.find("machine.accelerator") == "gpu" else "cpu", "data": run.source}
    chosen |= _DEFAULTS
    return {group: str(option) for group, option in chosen.items() if option is not None}


def _yaml(name: str) -> Mapping[str, Any]:
    """A file of the configuration, empty if there is none: its values are then spelled out."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (file := folder / f"{name}.yaml").is_file():
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            return tree if isinstance(tree, dict) else {}
    return {}


def _word(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, Mapping):
        told = {name: of for name, of in value.items() if of is not None}
        return f"{{{','.join(f'{name}:{_word(of)}' for name, of in told.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w./:+-]*", value) and value.lower() not in ("null", "true", "false")
        before_quotes = re.sub(r"\\+(?='|$)", lambda found: found[0] * 2, value)
        return value if plain else "'" + before_quotes.replace("'", "\\'") + "'"
    return json.dumps(value)
