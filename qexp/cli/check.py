"""Check how low a fine-tuned model can go on one's own rows: ``qexp check MODEL ROWS``.

Exit codes: those of a sweep (:mod:`qexp.errors`); 2 also where a column or a kind of task cannot be told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qexp.environment import check_environment
from qexp.errors import INVALID, QexpError

if TYPE_CHECKING:
    from qexp.data.detection.detect import Detected
    from qexp.records.record import Record

DEFAULTS = {"finetune": "none", "method": "ptq", "quant": "w8a8,w4a8"}
"""Overrides that the user's own take the place of."""
FIELDS = {"model.name": "MODEL", "model": "MODEL", "data.path": "ROWS", "data": "ROWS"}
"""Settings that are arguments of this command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Find out the task, run the sweep, print its table and verdict, and return the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    options, words = _parser().parse_args(argv[:2]), argv[2:]
    if {"-h", "--help"} & {*words}:
        _parser().parse_args(["--help"])
    try:
        check_environment()
        composed = overrides(options.model, options.rows, words)
    except QexpError as error:
        print(f"qexp check: {error}", file=sys.stderr)
        return INVALID
    from qexp.cli.run import main as run
    from qexp.reporting.command import shell_command

    print(shell_command(composed), file=sys.stderr)
    return run(composed, show=print_check)


def overrides(model: str, rows: str, words: Sequence[str]) -> list[str]:
    """Return the overrides of the sweep, and print what was found out.

    Args:
        model: Folder of a checkpoint, or a name on the hub.
        rows: File or folder.
        words: Overrides and options of the user, which come before what is found out.

    Raises:
        QexpError: The checkpoint, the rows, a column or a label cannot be used.
    """
    from qexp.reporting.command import hydra_value

    pairs = (word.partition("=") for word in words)
    stated = {name.lstrip("+"): value for name, sign, value in pairs if sign}
    for name, argument in FIELDS.items():
        if name in stated:
            _refuse(name, stated[name], argument)
    folder, found = _found(model, rows, stated)
    for sentence in found.statements:
        print(sentence, file=sys.stderr)
    settings = {"task": found.kind, "data.path": rows, "model.name": folder, **DEFAULTS, **found.settings}
    composed = [
        f"{name}={value if name in DEFAULTS else hydra_value(value)}"
        for name, value in settings.items()
        if name not in stated
    ]
    swept = {"-m", "--multirun", "--cfg", "-c"} & {*words}
    if {"--cfg", "-c"} & {*words} and "quant" not in stated:
        composed[composed.index(f"quant={DEFAULTS['quant']}")] = "quant=w8a8"
    return [*([] if swept else ["-m"]), *composed, *words]


def _refuse(name: str, value: str, argument: str) -> None:
    from qexp.errors import ConfigError

    raise ConfigError(f"{name}={value}: here it is the argument {argument}: qexp check MODEL ROWS")


def _found(model: str, rows: str, stated: Mapping[str, str]) -> tuple[str, Detected]:
    """Return the folder or name of the model, and the settings that follow from it and the rows."""
    from qexp.config import Model
    from qexp.data.checkpoints import Checkpoint, config_of, locate
    from qexp.data.detection.detect import detect
    from qexp.data.detection.heads import checkpoint_in, head_of

    given = Path(model).expanduser()
    folder = checkpoint_in(given)
    name = model if folder == given else str(folder)
    checkpoint = locate(Model(name=name))
    assert isinstance(checkpoint, Checkpoint)
    head = head_of(config_of(checkpoint), checkpoint.folder)
    found = detect(head, Path(rows).expanduser(), {key: _value(value) for key, value in stated.items()})
    if name != model:
        found.statements.insert(0, f"model: {name}, the checkpoint that Trainer calls best, or its last")
    return name, found


def _value(text: str) -> Any:
    """Return an override's value, a list as a list of texts."""
    if text.startswith("[") and text.endswith("]"):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",")]
    return text


def print_check(records: Sequence[Record], outputs: Path) -> None:
    """Print the table of all quantized models, the checks of the rows, and the verdict."""
    from rich.console import Console

    from qexp.reporting.formats.terminal import show, show_verdicts, write
    from qexp.reporting.tables.candidates import candidate_table
    from qexp.reporting.verdict.verdict import verdicts

    console, found = Console(), verdicts(records)
    for verdict in found:
        if verdict.candidates:
            show(candidate_table(verdict), console)
    for line in _checks(records):
        write(console, line)
    console.print()
    show_verdicts(found, console, outputs)


def _checks(records: Sequence[Record]) -> list[str]:
    """Return the checks and warnings of all runs, each once."""
    used = [record.data for record in records if record.data]
    checks = [check for data in used for check in data.get("checks", [])]
    warnings = [f"warning: {each}" for record in records for each in record.warnings]
    worrying = {each.removeprefix("warning: ") for each in warnings}
    return list(dict.fromkeys([*(each for each in checks if each not in worrying), *warnings]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp check",
        usage="qexp check MODEL ROWS [field=value ...] [group=option ...] [--dry-run]",
        description="Quantizes a fine-tuned model after training, at W8A8 and W4A8, evaluates it on rows of "
        "your own, exports it, checks and times the engines, and says which one to deploy. The kind of task "
        "comes from the checkpoint (classification of one or two texts, regression, multi-label, token "
        "classification, question answering, reranking, embedding), columns and labels from the rows. Where "
        "they cannot be told: data.text=COLUMN or 'data.text=[ONE,OTHER]', data.label=COLUMN, task=KIND. "
        "Every setting of a run may be added: quant=w8a8,w6a8 accept.loss=1 deploy=openvino.",
        epilog="Exit code 0: done; 1: a run or a gate failed; 2: refused before any work; 130: Ctrl-C.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder that save_pretrained or Trainer wrote, with its tokenizer, or a name on the hub",
    )
    parser.add_argument(
        "rows",
        metavar="ROWS",
        help="file (CSV, TSV, JSON lines, parquet, CoNLL, SQuAD's JSON), folder of save_to_disk, or folder "
        "with train and validation; half of a single file is evaluated (data.validation_share)",
    )
    return parser
