"""Text of ``qexp --help``: commands by purpose, and choices of each group with their defaults marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

from qexp.environment import conf_folder

_WIDTH = 100
_HEAD = """\
qexp: fine-tune, calibrate, train and deploy quantized text encoders and translators

  qexp task=mrpc quant=w8a8                 one run: FP32, PTQ and QAT side by side
  qexp task=mrpc quant=w4a8 budget=smoke    the same in about a minute, to try a command
  qexp -m task=cola,mrpc quant=w8a8,w4a8    every combination
  qexp report                               tables of everything that was run

"""
_COMMANDS = "Commands, each with --help of its own (qexp COMMAND is python -m qexp COMMAND):"
_CHOICES = (
    "Choices, group=option, the default with a *; values by field=value (method.epochs=2, tags=[baseline]):"
)
_TAIL = """\
  --cfg job        print the whole configuration and stop
  --dry-run        the same as qexp plan
  --multirun, -m   a sweep: several options or values with commas between them
  --config-dir     a folder of your own tasks, models and recipes, laid out as conf/; may be repeated
  --info, --hydra-help, --config-name: as in every Hydra program

Results: outputs/records (one JSON for each run), outputs/artifacts (what the stages left, reused by content);
QEXP_OUTPUTS moves the folder, QEXP_DATA names a local data root with <task>/<split>.parquet, .csv, …
Your own rows: qexp task=classification data.path=reviews.csv data.text=review data.label=stars
Your own tasks, models and recipes: --config-dir FOLDER or QEXP_CONF, a folder laid out as conf/
RUN is last, TASK, TASK/QUANT (mrpc/w8a8), or the beginning of a key; qexp runs lists them.
Exit code 0: done; 1: a run failed, or a result is not good enough; 2: refused before any work; 130: Ctrl-C.
Completion in bash or zsh: eval "$(qexp completion bash)"
"""


def help_text(commands: Mapping[str, Mapping[str, str]], groups: Mapping[str, Sequence[str]]) -> str:
    """Return the help.

    Args:
        commands: Line of each command, by name, by purpose.
        groups: Options of each group of the configuration.
    """
    return "\n".join(
        [_HEAD + _COMMANDS, *_command_lines(commands), "", _CHOICES, "", *_choice_lines(groups), "", _TAIL]
    )


def _command_lines(commands: Mapping[str, Mapping[str, str]]) -> list[str]:
    width = max(len(name) for of_purpose in commands.values() for name in of_purpose)
    lines = []
    for purpose, of_purpose in commands.items():
        lines += ["", f"  {purpose}", *(f"    {name:{width}}  {line}" for name, line in of_purpose.items())]
    return lines


def _choice_lines(groups: Mapping[str, Sequence[str]]) -> list[str]:
    defaults, lines = default_options(), []
    for group, options in groups.items():
        names = [f"{name}*" if name == defaults.get(group) else name for name in options if "/" not in name]
        folders = sorted({f"{name.partition('/')[0]}/…" for name in options if "/" in name})
        text = f"{group}: {', '.join([*names, *folders])}"
        lines.append(
            fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        )
    return lines


def default_options() -> dict[str, str]:
    """Return the option of each group that ``conf/config.yaml`` chooses."""
    defaults = {}
    for line in (conf_folder() / "config.yaml").read_text(encoding="utf-8").splitlines():
        group, sign, option = line.strip().removeprefix("- ").partition(": ")
        if line.startswith("  - ") and sign and " " not in group and option not in ("???", "null"):
            defaults[group] = option
    return defaults
