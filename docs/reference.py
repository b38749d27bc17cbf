"""Write the generated pages: ``fields.md``, ``options.md`` and ``commands.md``.

Run ``python docs/reference.py``, or ``make docs``. Fields follow from the pydantic models of ``qexp.config``:
types, limits, defaults, and docstrings as descriptions. Options follow from ``conf/``: the comment that opens
each file, and its values. Commands follow from what each prints with ``--help``.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONF = ROOT / "conf"
NOTE = "<!-- Made by docs/reference.py: run `make docs`. Changes here are lost. -->\n"
LIMITS = {"minimum": "≥ {}", "maximum": "≤ {}", "exclusiveMinimum": "> {}", "exclusiveMaximum": "< {}"}
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
FIELDS_HEAD = """\
# Fields

Every field of an experiment. Set one in a command by its path: `qexp task=mrpc quant=w8a8 method.epochs=3`.
`qexp task=mrpc --cfg job` prints the values that a command has.

- *Default* is what a field has if no option sets it. An [option](options.md) of a group may set another:
  `method=qat_lsq_plus` sets `method.zero_points`.
- `required` means that the option of the group sets it. An empty default is that of the section's own fields.
- A section with several kinds has a table for each. The option chooses the kind; `kind` is never typed.
- A field that nothing reads under the other settings is refused, so it cannot be set in vain.
"""
OPTIONS_HEAD = """\
# Options

The groups of `conf/`, and what each option sets. Choose one by `group=option`, such as `quant=w4a8`.

- A `*` marks the default. *Shared* values are those of every option that has the field.
- Single values are changed by `group.field=value`. [Fields](fields.md) says what each means.
- Your own options are YAML files in a folder of yours: [your own tasks, models and recipes](own_config.md).
"""
COMMANDS_HEAD = """\
# Commands

`qexp COMMAND` and `python -m qexp COMMAND` are the same. Words without a command, such as
`task=mrpc quant=w8a8`, are an experiment, which is run. RUN is a [name of a run](using.md#names-of-runs).
Exit codes are [the same for all](results.md#exit-codes).
"""


def cell(text: str) -> str:
    """Return text that stands in one cell of a table."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return " ".join(re.sub(r"(?<!\\)\|", r"\\|", text).split())


def joined(lines: Iterable[str]) -> str:
    """Return the text of lines, with one newline at its end."""
    return "\n".join(lines).rstrip() + "\n"


def values(schema: Mapping[str, Any]) -> str:
    """Return what a schema allows, in words."""
    if "$ref" in schema or "allOf" in schema:
        return "section"
    if "anyOf" in schema:
        return ", ".join(dict.fromkeys(values(each) for each in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {values(schema['items'])}" if "items" in schema else "list"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"mapping to {values(inner)}" if isinstance(inner, Mapping) else "mapping"
    limits = [form.format(schema[name]) for name, form in LIMITS.items() if name in schema]
    return " ".join([TYPES.get(str(kind), "any"), *limits])


def default(schema: Mapping[str, Any], required: bool) -> str:
    """Return the default of a field, as one would type it."""
    if required:
        return "required"
    if "default" not in schema:
        return "empty"
    return f"`{plain(schema['default'])}`"


def plain(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def sections(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the sections inside the value of a field: the rest of its path, and the section's name."""
    if "$ref" in schema:
        yield "", schema["$ref"].rpartition("/")[2]
    for each in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from sections(each)
    if isinstance(schema.get("additionalProperties"), Mapping):
        for rest, name in sections(schema["additionalProperties"]):
            yield f".GLOB{rest}", name


class Fields:
    """Tables of the fields of a section and of the sections in it, each of these once."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = definitions
        self.seen: dict[str, str] = {}

    def rows(self, name: str, path: str) -> Iterator[str]:
        """Yield a row of the table for each field."""
        section = self.definitions[name]
        self.seen[name] = path
        for field, schema in section.get("properties", {}).items():
            if field == "kind" and "const" in schema:
                continue
            here, inner = f"{path}.{field}", list(sections(schema))
            meaning = schema.get("description", "")
            known = [self.seen[each] for _, each in inner if each in self.seen]
            if known:
                meaning += f" Its fields are those of `{known[0]}`."
            if known or meaning or not inner:
                required = field in section.get("required", ())
                yield row(
                    here, values(schema), "" if "$ref" in schema else default(schema, required), meaning
                )
            for rest, each in inner:
                if each not in self.seen:
                    yield from self.rows(each, f"{here}{rest}")


def row(path: str, *cells: str) -> str:
    """Return a row of a table of fields."""
    return f"| `{path}` | {' | '.join(cell(each) for each in cells)} |"


def table(rows: Iterable[str]) -> list[str]:
    """Return the lines of a table of fields."""
    listed = list(rows)
    head = ["| field | values | default | meaning |", "|---|---|---|---|"]
    return [*head, *listed, ""] if listed else ["No fields.", ""]


def fields_page() -> str:
    """Return the page of all fields."""
    from qexp.config import Experiment

    schema = Experiment.model_json_schema()
    lines = [FIELDS_HEAD]
    for field, own in schema["properties"].items():
        lines += [f"## {field}", ""]
        if (CONF / field).is_dir():
            lines += [f"Options: [`{field}=…`](options.md#{field}).", ""]
        if "discriminator" in own:
            lines += union(field, own, schema["$defs"])
        elif "$ref" in own:
            name = own["$ref"].rpartition("/")[2]
            lines += [cell(schema["$defs"][name].get("description", "")), ""]
            lines += table(Fields(schema["$defs"]).rows(name, field))
        else:
            lines += table([row(field, values(own), default(own, False), own.get("description", ""))])
    return f"{NOTE}{joined(lines)}"


def union(field: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """Return the tables of a section with several kinds, and one of what all kinds share."""
    names = [each["$ref"].rpartition("/")[2] for each in schema["oneOf"]]
    tables = {name: list(Fields(definitions).rows(name, field)) for name in names}
    shared = [each for each in tables[names[0]] if all(each in rows for rows in tables.values())]
    lines = [f"### {field}: every kind", "", *table(shared)] if shared else []
    for name in names:
        reference = f"#/$defs/{name}"
        kinds = [kind for kind, of in schema["discriminator"]["mapping"].items() if of == reference]
        lines += [f"### {field}: {', '.join(kinds)}", "", cell(definitions[name].get("description", "")), ""]
        own = [each for each in tables[name] if each not in shared]
        lines += table(own) if own or not shared else ["No other fields.", ""]
    return lines


def options_page() -> str:
    """Return the page of all options."""
    from qexp.cli.help import default_options

    chosen = default_options()
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    lines = [OPTIONS_HEAD]
    for group in ("hydra/launcher" if name == "hydra" else name for name in groups):
        options = {
            path.relative_to(CONF / group).with_suffix("").as_posix(): Option(path)
            for path in sorted((CONF / group).rglob("*.yaml"))
        }
        shared = shared_values([option.tree for option in options.values()])
        lines += [f"## {group}", ""]
        if shared:
            lines += [f"Shared: {', '.join(f'`{name}: {plain(shared[name])}`' for name in shared)}.", ""]
        lines += ["| option | about | sets |", "|---|---|---|"]
        for name, option in options.items():
            star = " \\*" if chosen.get(group) == name else ""
            lines.append(f"| `{name}`{star} | {cell(option.about)} | {cell(option.sets(shared))} |")
        lines.append("")
    return f"{NOTE}{joined(lines)}"


class Option:
    """File of ``conf/``: the comment that opens it, options that it goes on from, and its values."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        opening = list(takewhile(lambda line: line.startswith("#"), text.splitlines()))
        self.about = " ".join(line.removeprefix("#") for line in opening if "@package" not in line)
        self.tree = dict(yaml.safe_load(text) or {})
        self.bases = []
        for each in self.tree.pop("defaults", []):
            if isinstance(each, Mapping):
                self.bases += [f"`{name.removeprefix('override /')}={of}`" for name, of in each.items()]
            elif each != "_self_":
                self.bases.append(f"as `{each}`")

    def sets(self, shared: Mapping[str, Any]) -> str:
        """Return what the file sets, but for values that all options of the group share."""
        own = [f"`{name}: {plain(value)}`" for name, value in self.tree.items() if name not in shared]
        return ", ".join([*self.bases, *own])


def shared_values(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values on which all files agree that have them, where three or more have them."""
    found: dict[str, list[Any]] = {}
    for tree in trees:
        for name, value in tree.items():
            found.setdefault(name, []).append(value)
    return {
        name: values[0]
        for name, values in found.items()
        if len(values) > 2 and all(value == values[0] for value in values)
    }


def commands_page() -> str:
    """Return the page of all commands."""
    from qexp.cli.main import COMMANDS, commands_by_purpose

    lines = [COMMANDS_HEAD]
    for purpose, commands in commands_by_purpose().items():
        lines += [f"To {purpose}:", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`qexp {name}`](#{name}) | {cell(line)} |" for name, line in commands.items()]
        lines.append("")
    for name in COMMANDS:
        lines += [f"## {name}", "", "```text", help_of(name).strip(), "```", ""]
    return f"{NOTE}{joined(lines)}"


def help_of(command: str) -> str:
    """Return what a command prints with ``--help``, on a terminal of 100 columns."""
    from qexp.cli.main import run_command

    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "102"  # argparse leaves two free
    try:
        with redirect_stdout(printed):
            run_command(command, ["--help"])
    except SystemExit:
        pass
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return printed.getvalue()


PAGES = {"fields.md": fields_page, "options.md": options_page, "commands.md": commands_page}
"""Generated pages, by name."""

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
