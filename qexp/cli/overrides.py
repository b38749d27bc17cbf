"""Checks and rewriting of command-line arguments before Hydra parses them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from qexp.cli.words import LISTS, check_override, meant, options_of, unknown_flag
from qexp.environment import (
    CONF_VARIABLE,
    check_fields_in,
    own_conf_folder,
    refuse_hidden_options,
    sweeps_folder,
)
from qexp.errors import ConfigError, path_hint

DRY_RUN = "--dry-run"
_LAUNCH_PREFIXES = ("hydra/launcher=", "hydra.launcher.", "hydra.sweep.")
"""Prefixes of overrides that determine how jobs are run, not which; one or two ``+`` may precede them."""
_VALUE_OPTIONS = {
    "--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp", "--package", "-p", "--cfg", "-c",
    "--info", "-i", "--experimental-rerun",
}  # fmt: skip
"""Hydra's options with a value."""
_OPTIONS = {
    *_VALUE_OPTIONS, DRY_RUN, "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc",
}  # fmt: skip
"""All options of a run or a sweep."""
_ALIASES = {
    "-cn": "--config-name", "-cd": "--config-dir", "-cp": "--config-path", "-p": "--package", "-c": "--cfg",
    "-i": "--info",
}  # fmt: skip
_FOLDER_OPTIONS = ("--config-dir", "-cd")
_HELP = {"--help", "-h"}
_INFO_OPTIONS = _HELP | {
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
}
"""Options for which Hydra prints information instead of running."""
_FIELD = re.compile(r"(?P<path>\+{0,2}(?P<group>\w+)\.[\w.]+)=(?P<value>.*)", re.DOTALL)
_LIST = re.compile(r"[^=]*=\[[^{]*\]", re.DOTALL)
_CHOICE = re.compile(r"(choice|range|interval|tag|glob|shuffle|sort)\(|[^\[{'\"]*,", re.DOTALL)
"""Start of a value that represents several, for a sweep."""


def _with_installed_sweeps(words: Sequence[str]) -> list[str]:
    """Return the arguments with ``--config-dir sweeps`` as qexp's own folder, unless there is one here."""
    installed = sweeps_folder()
    if Path(installed.name).is_dir() or not installed.is_dir():
        return list(words)
    found = []
    for before, word in zip(["", *words], words, strict=False):
        name, sign, value = word.partition("=")
        if before in _FOLDER_OPTIONS and word == installed.name:
            found.append(str(installed))
        elif sign and name in _FOLDER_OPTIONS and value == installed.name:
            found.append(f"{name}={installed}")
        else:
            found.append(word)
    return found


class CommandLine:
    """Arguments of ``python -m qexp``: Hydra's options and overrides."""

    def __init__(self, words: Sequence[str]) -> None:
        self.all = _with_installed_sweeps(words)
        overrides = {word: meant(word, self.groups) for word in self._overrides()}
        self.all = [overrides.get(word, word) for word in self.all]
        self.notes = [
            f"{word} is taken for {taken}"
            for word, taken in overrides.items()
            if word != taken and not word.lstrip("+").startswith(("note=", "tags="))
        ]
        """Sentences on words that were taken for others."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing should be computed."""
        return DRY_RUN in self.all

    def check(self) -> None:
        """Check that no argument replaces another one.

        Hydra silently uses the last of several overrides of a field, and the last option in a list for a
        group.

        Raises:
            ConfigError: A group, field or option is given twice, a group has a list of options, or a file of
                one's own has the name of one of qexp's.
        """
        for folder in self.own_folders():
            refuse_hidden_options(folder)
            self._check_own_options(folder)
        self._check_names()
        seen: dict[str, str] = {}
        for name, text in [*self._options(), *((_name(text), text) for text in self._overrides())]:
            if name == "hydra.searchpath" and (self._search_path or own_conf_folder()):
                raise ConfigError(
                    f"{text} with {CONF_VARIABLE} or a second --config-dir: only one can count; add the "
                    "folder, "
                    "or leave the other out"
                )
            if name == "--config-dir":
                continue
            if name in seen:
                raise ConfigError(
                    f"{seen[name]} and {text}: {name} is given twice, and only one can count; keep one of "
                    f"them{_as_sweep(name, seen[name], text)}"
                )
            seen[name] = text
            if "." not in name and "/" not in name and name not in LISTS and _LIST.fullmatch(text):
                raise ConfigError(
                    f"{text}: a list of options of one group, of which only the last would count; keep one "
                    f"of them, or try each in a sweep: -m {text.replace('[', '').replace(']', '')}"
                )

    def own_folders(self) -> list[Path]:
        """Return the folders of one's own configuration: those of ``--config-dir``, and that of QEXP_CONF."""
        named = [Path(folder).absolute() for folder in self._values(*_FOLDER_OPTIONS)]
        folders = [*named, *([own] if (own := own_conf_folder()) else [])]
        return [folder for folder in folders if folder.is_dir()]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Options of each group, of one's own folders too."""
        return options_of(self.own_folders())

    @property
    def _main_folder(self) -> str | None:
        """The ``--config-dir`` that Hydra is told of: the one with the file of ``--config-name``."""
        folders = self._values(*_FOLDER_OPTIONS)
        holding = (each for each in folders if (Path(each) / f"{self._file_name}.yaml").is_file())
        return next(holding, folders[0] if folders else None)

    @property
    def _search_path(self) -> list[Path]:
        """The other folders of ``--config-dir``, which Hydra searches behind that one."""
        named = dict.fromkeys(self._values(*_FOLDER_OPTIONS))
        return [Path(folder).absolute() for folder in named if folder != self._main_folder]

    def _check_own_options(self, folder: Path) -> None:
        """Check that the chosen options of a folder of one's own hold fields; Hydra takes it for granted."""
        for override in self._overrides():
            group, _, option = override.lstrip("+").partition("=")
            file = folder / group / f"{option}.yaml"
            if re.fullmatch(r"[\w./-]+", option) and file.is_file():
                check_fields_in(file)

    def _check_names(self) -> None:
        """Check that options and first names of overrides exist, and folders of ``--config-dir``."""
        overrides = self._overrides()
        for index, word in enumerate(self.all):
            name = word.partition("=")[0]
            follows = self.all[index - 1] in _VALUE_OPTIONS if index else False
            if word.startswith("--") and not follows and not any(each.startswith(name) for each in _OPTIONS):
                value = next(iter(self.all[index + 1 :]), "")
                raise ConfigError(unknown_flag(word, value, _OPTIONS, self.groups))
        for folder in self._values(*_FOLDER_OPTIONS):
            if not Path(folder).is_dir():
                hint = f"{path_hint(folder, folder=True)}name one that is laid out as conf/"
                raise ConfigError(f"--config-dir {folder}: no such folder; {hint}")
        for word in overrides:
            check_override(word, self.groups)

    def for_hydra(self, folder: Path | None = None) -> list[str]:
        """Return the arguments for Hydra, with its output folder added.

        Hydra requires all overrides to be contiguous, so the added ones precede the first.

        Args:
            folder: Output folder of Hydra; None for a new folder in the outputs.
        """
        words = self._with_one_folder() if self._search_path else self.all
        arguments = [self._defer_to_jobs(argument) for argument in words if argument != DRY_RUN]
        added = []
        if folder is not None:
            added = [f"hydra.{mode}.dir={_quoted(folder)}" for mode in ("run", "sweep")]
        elif not (
            _INFO_OPTIONS & {*arguments}
            or any(argument.lstrip("+").startswith("hydra.sweep.dir=") for argument in arguments)
        ):
            added = [f"hydra.sweep.dir={_quoted(self._sweep_folder)}"]
        own = own_conf_folder()
        if searched := [*self._search_path, *([own] if own else [])]:
            added.append(f"hydra.searchpath=[{','.join(map(_quoted, searched))}]")
        first = next(iter(self._overrides()), None)
        index = len(arguments) if first is None else arguments.index(self._defer_to_jobs(first))
        return [*arguments[:index], *added, *arguments[index:]]

    def _with_one_folder(self) -> list[str]:
        """Return the arguments with a single ``--config-dir``, since Hydra takes only the last."""
        rest, skip = [], False
        for argument in self.all:
            name, sign, _ = argument.partition("=")
            if skip or name in _FOLDER_OPTIONS:
                skip = not skip and not sign
                continue
            rest.append(argument)
        return [f"--config-dir={self._main_folder}", *rest]

    def _defer_to_jobs(self, override: str) -> str:
        """Rewrite a field of a swept group as a choice of one value, so that only the jobs apply it.

        Hydra 1.3 first composes a sweep without its swept groups, and rejects ``task.max_length=64`` then
        because no task is selected.
        """
        field = _FIELD.fullmatch(override)
        if not field or field["group"] not in self._swept or _CHOICE.match(field["value"]):
            return override
        return f"{field['path']}=choice({field['value']})"

    @property
    def _swept(self) -> set[str]:
        """Groups with several options in a sweep."""
        if not {"-m", "--multirun"} & {*self.all}:
            return set()
        parts = (override.partition("=") for override in self._overrides())
        return {name.lstrip("+") for name, _, value in parts if "," in value and "." not in name}

    @property
    def name(self) -> str:
        """Name of the sweep's file; ``sweep`` for one from the command line."""
        return Path(self._file_name or "sweep").name

    @property
    def identity(self) -> str:
        """Id of a sweep, 8 hexadecimal digits: the same for the same jobs, however they are launched."""
        import hashlib

        overrides = sorted(
            override
            for override in self._overrides()
            if not override.lstrip("+").startswith(_LAUNCH_PREFIXES)
        )
        file = Path(self._main_folder or ".") / f"{self._file_name}.yaml"
        content = file.read_text(encoding="utf-8") if self._file_name and file.is_file() else ""
        return hashlib.sha256("\n".join([self.name, content, *overrides]).encode()).hexdigest()[:8]

    @property
    def _file_name(self) -> str:
        """Value of ``--config-name`` without its optional suffix."""
        return (self._value("--config-name", "-cn") or "").removesuffix(".yaml")

    @property
    def _sweep_folder(self) -> Path:
        """Output folder of the sweep, new for each attempt."""
        from datetime import UTC, datetime

        from qexp.records.record import outputs_root

        attempt = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        return outputs_root() / "sweeps" / f"{self.name}-{self.identity}" / attempt

    def _value(self, *options: str) -> str | None:
        """Return the first value of an option, or None."""
        return next(iter(self._values(*options)), None)

    def _values(self, *options: str) -> list[str]:
        """Return the values of an option, each given as ``--option value`` or ``--option=value``."""
        values = []
        for index, argument in enumerate(self.all):
            name, sign, value = argument.partition("=")
            if name in options:
                values += [value] if sign else self.all[index + 1 : index + 2]
        return values

    def _options(self) -> list[tuple[str, str]]:
        """Return the options with a value, as pairs of their long name and their text on the command line."""
        options = []
        for index, argument in enumerate(self.all):
            name, sign, _ = argument.partition("=")
            if name in _VALUE_OPTIONS:
                written = argument if sign else " ".join(self.all[index : index + 2])
                options.append((_ALIASES.get(name, name), written))
        return options

    def _overrides(self) -> list[str]:
        """Return the overrides: arguments that are neither options nor values of options."""
        before = ["", *self.all]
        pairs = zip(before, self.all, strict=False)
        return [
            argument for previous, argument in pairs if previous not in _VALUE_OPTIONS and argument[:1] != "-"
        ]


def _name(override: str) -> str:
    """Return the group or field of an override, without Hydra's prefixes ``+`` and ``~``."""
    return override.partition("=")[0].lstrip("+~")


def _as_sweep(name: str, *overrides: str) -> str:
    """Return a hint to try both values in a sweep, if a sweep can vary them."""
    if name.startswith(("-", "hydra")):
        return ""
    return f", or try each in a sweep: -m {name}={','.join(each.partition('=')[2] for each in overrides)}"


def _quoted(path: Path) -> str:
    """Quote a path for Hydra's grammar, and escape ``${`` for OmegaConf, which would interpolate it.

    For both, a backslash is literal unless an escapable character follows.
    """
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path))
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), plain) + "'"
