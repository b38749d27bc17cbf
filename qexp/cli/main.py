"""``qexp`` and ``python -m qexp``: a command and its options, or overrides of the configuration to run.

``qexp report --html`` calls a command; ``qexp task=mrpc quant=w8a8`` composes an experiment and runs it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from qexp.errors import INVALID


@dataclass(frozen=True)
class Command:
    """Subcommand: the module whose ``main`` it calls, and its line in the help."""

    module: str
    help: str


COMMANDS = {
    "plan": Command("plan", "show what a run or a sweep would compute, and compute nothing"),
    "report": Command("report", "print tables of all runs; write the HTML page, CSV, JSON, LaTeX, figures"),
    "compare": Command("compare", "compare two runs row by row, with intervals"),
    "inspect": Command("inspect", "show the layers of a run: ranges, errors, histograms"),
    "sensitivity": Command("sensitivity", "quantize one group of layers at a time, and measure the loss"),
    "search": Command("search", "assign bit-widths to groups of layers within a limit of loss or cost"),
    "bench": Command("benchmark", "export the best runs, check their engines, and time them side by side"),
    "build": Command("build_engine", "build engines of TensorRT for RTX ahead of time"),
    "predict": Command("predict", "predict rows of a file with a finished run"),
    "publish": Command("publish", "write a run's model as a folder that needs no qexp"),
    "export-encodings": Command("export_encodings", "write a run's model as AIMET and Qualcomm take it"),
    "import": Command("import_ranges", "take over ranges from AIMET or pytorch-quantization"),
    "store": Command("store", "list, verify and clean the artifacts of runs"),
    "dashboard": Command("dashboard", "save a W&B workspace over the pages of all runs"),
}


def main() -> None:
    """Run the command or the experiment of the command line, and exit with its code."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        sys.exit(run_command(arguments[0], arguments[1:]))
    if arguments and is_misspelled(arguments[0]):
        close = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        print(
            f"error: {arguments[0]}: no command; {hint}commands are {', '.join(COMMANDS)}; an experiment is "
            "composed of overrides, such as: qexp task=mrpc quant=w8a8",
            file=sys.stderr,
        )
        sys.exit(INVALID)
    from qexp.cli.run import main as run

    sys.exit(run(arguments))


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Import the module of a command, call its ``main``, and return the exit code."""
    return int(import_module(f"qexp.cli.{COMMANDS[name].module}").main(arguments))


def run_alias(name: str) -> None:
    """Run a command that was called by its module name of qexp 0.1, and print its current name."""
    print(f"python -m qexp.{name} is now: qexp {name}, or python -m qexp {name}", file=sys.stderr)
    sys.exit(run_command(name, sys.argv[1:]))


def is_misspelled(word: str) -> bool:
    """Return whether the first argument is neither an override nor an option, nor part of a sweep."""
    return word.replace("-", "").isalpha() and not word.startswith("-")


def describe_commands() -> str:
    """List the commands with a line each, for the help."""
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
