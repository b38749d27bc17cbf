"""``qexp`` and ``python -m qexp``: a command and its options, or overrides of the configuration to run.

``qexp report --html`` calls a command; ``qexp task=mrpc quant=w8a8`` composes an experiment and runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from qexp.errors import INVALID, OK, QexpError, nearest_name


class Command(NamedTuple):
    """Subcommand: the module whose ``main`` it calls, its line in the help, and its purpose there."""

    module: str
    help: str
    purpose: str


RUN, READ, ANALYZE, USE, STORE = (
    "run", "look at runs", "find out why, and what helps", "use a model", "look after the outputs"
)  # fmt: skip
"""Purposes of commands, in the order of the help."""
COMMANDS = {
    "check": Command(
        "check", "quantize a classifier of your own on your rows: PTQ at W8A8 and W4A8, and a verdict", RUN
    ),
    "plan": Command("plan", "show what a run or a sweep would compute, and compute nothing", RUN),
    "again": Command("again", "run an experiment again, with changes", RUN),
    "runs": Command("runs", "list runs; filter and sort them", READ),
    "show": Command("show", "show a run: settings, scores, files, stages, warnings", READ),
    "diff": Command("diff", "show the settings and scores in which two runs differ", READ),
    "compare": Command("compare", "compare two runs row by row, with intervals", READ),
    "report": Command(
        "report", "print tables of all runs; write the HTML page, CSV, JSON, LaTeX, figures", READ
    ),
    "open": Command("open", "open the page of all runs in a browser", READ),
    "dashboard": Command("dashboard", "save a W&B workspace over the pages of all runs", READ),
    "inspect": Command("inspect", "show the layers of a run: ranges, errors, histograms", ANALYZE),
    "sensitivity": Command(
        "sensitivity", "quantize one group of layers at a time, and measure the loss", ANALYZE
    ),
    "search": Command(
        "search", "assign bit-widths to groups of layers within a limit of loss or cost", ANALYZE
    ),
    "bench": Command(
        "benchmark", "export the best runs, check their engines, and time them side by side", USE
    ),
    "predict": Command("predict", "predict rows of a file with a finished run", USE),
    "publish": Command("publish", "write a run's model as a folder that needs no qexp", USE),
    "build": Command("build_engine", "build engines of TensorRT for RTX ahead of time", USE),
    "export-encodings": Command("export_encodings", "write a run's model as AIMET and Qualcomm take it", USE),
    "import": Command("import_ranges", "take over ranges from AIMET or pytorch-quantization", USE),
    "store": Command("store", "list, verify and clean the artifacts of runs", STORE),
    "clean": Command("clean", "remove Records of runs that never began, and waste in the store", STORE),
    "completion": Command("completion", "print the completion of a shell: bash or zsh", STORE),
}


def main() -> None:
    """Run the command or the experiment of the command line, and exit with its code."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        sys.exit(run_command(arguments[0], arguments[1:]))
    if not arguments or {"--help", "-h"} & {*arguments}:
        sys.exit(_print_help(arguments))
    if "--version" in arguments:
        from qexp import __version__

        print(f"qexp {__version__}")
        sys.exit(OK)
    if is_misspelled(arguments[0]):
        close = nearest_name(arguments[0], COMMANDS)
        hint = f"did you mean {close}? " if close else ""
        print(
            f"error: {arguments[0]}: no command; {hint}commands are {', '.join(COMMANDS)}; an experiment is "
            "composed of overrides, such as: qexp task=mrpc quant=w8a8",
            file=sys.stderr,
        )
        sys.exit(INVALID)
    from qexp.cli.run import main as run

    sys.exit(run(arguments))


def _print_help(arguments: Sequence[str]) -> int:
    """Print the help, with the options of one's own folders; without any word, it is an error."""
    from qexp.cli.help import help_text
    from qexp.cli.overrides import CommandLine
    from qexp.console import print_out

    try:
        groups = {name: of for name, of in CommandLine(arguments).groups.items() if name != "hydra"}
    except QexpError as error:
        print(f"error: {error}", file=sys.stderr)
        return INVALID
    if not arguments:
        print(
            "error: no words; name a task, such as: qexp task=mrpc quant=w8a8; qexp --help lists all",
            file=sys.stderr,
        )
        return INVALID
    print_out(help_text(commands_by_purpose(), groups))
    return OK


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


def commands_by_purpose() -> dict[str, dict[str, str]]:
    """Return the line of each command, by its name, by its purpose."""
    purposes: dict[str, dict[str, str]] = {purpose: {} for purpose in (RUN, READ, ANALYZE, USE, STORE)}
    for name, command in COMMANDS.items():
        purposes[command.purpose][name] = command.help
    return purposes
