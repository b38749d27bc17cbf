"""Completion of words in bash and zsh: ``eval "$(qexp completion bash)"``.

Exit codes: 0, printed; 2, no such shell.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from qexp.cli.words import FIELDS, options_of
from qexp.console import print_out
from qexp.environment import CONF_VARIABLE
from qexp.errors import OK
from qexp.records.record import outputs_root, read_all, records_folder

_BASH = """\
_qexp() {
    local line="${COMP_LINE:0:$COMP_POINT}" word start="" reply
    COMPREPLY=()
    word="${line##* }"
    if [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]]; then start="${word%=*}="; fi
    while IFS= read -r reply; do
        [ -n "$reply" ] && COMPREPLY+=("${reply#"$start"}")
    done < <(PROGRAM completion --line "$line" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" != *[=.] ]] && compopt +o nospace 2>/dev/null
    return 0
}
complete -o nospace -o default -F _qexp qexp
"""
_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
_qexp() {
    local -a replies
    replies=("${(@f)$(PROGRAM completion --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    replies=(${replies:#})
    (( $#replies )) || { _files; return }
    compadd -S '' -- ${(M)replies:#*[=.]}
    compadd -- ${replies:#*[=.]}
}
compdef _qexp qexp
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH}
_WITH_RUN = {
    "show": 1, "diff": 2, "again": 1, "compare": 2, "inspect": 1, "sensitivity": 1, "search": 1,
    "bench": 99, "build": 1,
    "predict": 1, "publish": 1, "export-encodings": 1, "report": 99,
}  # fmt: skip
"""Commands whose first arguments, so many of them, name runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the script of a shell, or with ``--line`` the words that may follow, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.line is not None:
        print_out("".join(f"{word}\n" for word in candidates(options.line)))
        return OK
    program = f"{shlex.quote(sys.executable)} -m qexp"
    print_out(_SCRIPTS[options.shell].replace("PROGRAM", program))
    return OK


def candidates(line: str) -> list[str]:
    """Return the words that the last word of a command line may become."""
    from qexp.cli.main import COMMANDS

    before, word = _split(line)
    command = before[0] if before and before[0] in COMMANDS else None
    if command in (None, "plan") or (command == "again" and len(before) > 1):
        names = [*(COMMANDS if not before else ()), *_of_experiment(word)]
    else:
        assert command is not None
        names = [*_of_command(command, before[1:], word)]
    return sorted({name for name in names if name.startswith(word)})


def _split(line: str) -> tuple[list[str], str]:
    """Return the words behind the program and before the last one, and the last one, which may be empty."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is still open
        words = line.split()
    if not words or line[-1:].isspace():
        words.append("")
    return words[1:-1], words[-1] if len(words) > 1 else ""


def _of_experiment(word: str) -> Iterator[str]:
    """Yield overrides: groups and fields, and behind ``=`` the options; of a list, those of its last part."""
    own = os.environ.get(CONF_VARIABLE)
    groups = options_of([Path(own)] if own and Path(own).is_dir() else [])
    groups.pop("hydra", None)
    name, sign, value = word.partition("=")
    if sign:
        start = value.rpartition(",")[0]
        yield from (f"{name}={start + ',' if start else ''}{option}" for option in groups.get(name, ()))
    elif "." in word:
        from qexp.config.validation_errors import allowed_fields

        *parents, _ = word.split(".")
        yield from (f"{'.'.join([*parents, field])}=" for field in allowed_fields(parents) if field != "kind")
    elif word.startswith("-"):
        yield from ("--multirun", "--cfg", "--dry-run", "--config-dir", "--config-name", "--info", "--help")
    else:
        yield from (f"{name}=" for name in (*groups, *FIELDS) if name not in ("gate", "calibration"))
        yield from (f"{name}." for name in (*groups, "gate", "calibration") if name not in ("recipe",))


def _of_command(command: str, before: Sequence[str], word: str) -> Iterator[str]:
    """Yield options of a command, or names of runs where it takes them."""
    if command == "completion":
        yield from _SCRIPTS
    elif word.startswith("-"):
        yield from _flags(command)
    elif len([each for each in before if not each.startswith("-")]) < _WITH_RUN.get(command, 0):
        yield from _run_names()


def _flags(command: str) -> Iterator[str]:
    from qexp.cli.main import COMMANDS

    module = import_module(f"qexp.cli.{COMMANDS[command].module}")
    parser: argparse.ArgumentParser = module._parser()
    yield from (flag for action in parser._actions for flag in action.option_strings if flag.startswith("--"))


def _run_names() -> Iterator[str]:
    from qexp.reporting.run_names import LAST, SHORT
    from qexp.reporting.run_view import RunView

    with contextlib.suppress(Exception):  # a shell is no place for errors
        for record in read_all(records_folder(outputs_root()))[0]:
            run = RunView(record)
            yield record.key[:SHORT]
            if record.status == "ok":
                yield from (LAST, run.task, f"{run.task}/{run.quant}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp completion",
        description='Prints the completion of a shell: eval "$(qexp completion bash)" in ~/.bashrc, or '
        'eval "$(qexp completion zsh)" in ~/.zshrc. It completes commands and their options, names of '
        "runs, groups, "
        "their options, and fields.",
        epilog="Exit code 0: printed; 2: no such shell.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("shell", nargs="?", choices=tuple(_SCRIPTS))
    what.add_argument("--line", metavar="TEXT", help="print what the last word of a command line may become")
    return parser
