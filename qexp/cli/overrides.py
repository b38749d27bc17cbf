"""The words of a command line, before Hydra reads them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from qexp.errors import ConfigError
from qexp.records.record import outputs_root

DRY_RUN = "--dry-run"
_NOT_WHAT = ("hydra/launcher=", "hydra.launcher.", "hydra.sweep.")
"""How words begin that say how jobs are run, not which; one or two ``+`` may stand before."""
_WITH_VALUE = {
    "--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp", "--package", "-p", "--cfg", "-c",
    "--info", "-i", "--experimental-rerun",
}  # fmt: skip
"""Options that Hydra takes a word after."""
_ALIASES = {
    "-cn": "--config-name", "-cd": "--config-dir", "-cp": "--config-path", "-p": "--package", "-c": "--cfg",
    "-i": "--info",
}  # fmt: skip
_HELP = {"--help", "-h"}
_QUESTIONS = _HELP | {"--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
"""Options with which Hydra answers and runs nothing."""
_FIELD = re.compile(r"(?P<path>\+{0,2}(?P<group>\w+)\.[\w.]+)=(?P<value>.*)", re.DOTALL)
_LIST = re.compile(r"[^=]*=\[[^{]*\]", re.DOTALL)
_CHOICE = re.compile(r"(choice|range|interval|tag|glob|shuffle|sort)\(|[^\[{'\"]*,", re.DOTALL)
"""How a value begins that stands for several."""


class Words:
    """What stands behind ``python -m qexp``."""

    def __init__(self, words: Sequence[str]) -> None:
        self.all = list(words)

    @property
    def dry_run(self) -> bool:
        """Whether nothing should be computed."""
        return DRY_RUN in self.all

    def check(self) -> None:
        """See that no word takes another's place.

        Hydra lets the last of several win, and of a list of options of one group the last one, too.

        Raises:
            ConfigError: A group, field or option is given twice, or a group has a list of options.
        """
        seen: dict[str, str] = {}
        for name, word in [*self._options(), *((_name(word), word) for word in self._values())]:
            if name in seen:
                raise ConfigError(
                    f"{seen[name]} and {word}: {name} is given twice, and only one can count; keep one of "
                    f"them{_as_sweep(name, seen[name], word)}"
                )
            seen[name] = word
            if "." not in name and "/" not in name and _LIST.fullmatch(word):
                raise ConfigError(
                    f"{word}: a list of options of one group, of which only the last would count; keep one "
                    f"of them, or try each in a sweep: -m {word.replace('[', '').replace(']', '')}"
                )

    def for_hydra(self, folder: Path | None = None) -> list[str]:
        """Words with what Hydra must know besides: where it writes, by default in a new folder.

        Hydra wants all values in one piece, so ours go before the first of them.
        """
        words = [self._of_jobs(word) for word in self.all if word != DRY_RUN]
        more = []
        if _HELP & {*words} and not any(word.startswith("task=") for word in words):
            more = ["task=mrpc"]  # Hydra composes even for its help, and a task has no default
        elif folder is not None:
            more = [f"hydra.{mode}.dir={_quoted(folder)}" for mode in ("run", "sweep")]
        elif not (
            _QUESTIONS & {*words} or any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in words)
        ):
            more = [f"hydra.sweep.dir={_quoted(self._sweep_folder)}"]
        first = next(iter(self._values()), None)
        place = len(words) if first is None else words.index(self._of_jobs(first))
        return [*words[:place], *more, *words[place:]]

    def _of_jobs(self, word: str) -> str:
        """A value of a group that is swept is left to the jobs, as a choice of one.

        Hydra 1.3 first composes a sweep without what is swept, and refuses ``task.max_length=64`` there
        because no task is chosen yet.
        """
        field = _FIELD.fullmatch(word)
        if not field or field["group"] not in self._swept or _CHOICE.match(field["value"]):
            return word
        return f"{field['path']}=choice({field['value']})"

    @property
    def _swept(self) -> set[str]:
        """Groups of which a sweep tries several options."""
        if not {"-m", "--multirun"} & {*self.all}:
            return set()
        parted = (word.partition("=") for word in self._values())
        return {name.lstrip("+") for name, _, value in parted if "," in value and "." not in name}

    @property
    def name(self) -> str:
        """Name of the sweep's file; ``sweep`` for one that was typed."""
        return Path(self._file_name or "sweep").name

    @property
    def identity(self) -> str:
        """Of a sweep: the same for the same jobs, however they are launched; 8 hexadecimal digits."""
        what = sorted(word for word in self._values() if not word.lstrip("+").startswith(_NOT_WHAT))
        file = Path(self._value("--config-dir", "-cd") or ".") / f"{self._file_name}.yaml"
        content = file.read_text(encoding="utf-8") if self._file_name and file.is_file() else ""
        return hashlib.sha256("\n".join([self.name, content, *what]).encode()).hexdigest()[:8]

    @property
    def _file_name(self) -> str:
        """What ``--config-name`` says, without the ending that Hydra lets one write or leave out."""
        return (self._value("--config-name", "-cn") or "").removesuffix(".yaml")

    @property
    def _sweep_folder(self) -> Path:
        """A new one for each attempt."""
        from datetime import UTC, datetime

        attempt = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        return outputs_root() / "sweeps" / f"{self.name}-{self.identity}" / attempt

    def _value(self, *options: str) -> str | None:
        """What follows an option, as ``--option value`` or ``--option=value``."""
        for place, word in enumerate(self.all):
            name, sign, value = word.partition("=")
            if name in options:
                return value if sign else next(iter(self.all[place + 1 :]), None)
        return None

    def _options(self) -> list[tuple[str, str]]:
        """Options that take a value: their long names, and how they are written."""
        found = []
        for place, word in enumerate(self.all):
            name, sign, _ = word.partition("=")
            if name in _WITH_VALUE:
                written = word if sign else " ".join(self.all[place : place + 2])
                found.append((_ALIASES.get(name, name), written))
        return found

    def _values(self) -> list[str]:
        """Words that are no options and no options' values."""
        before = ["", *self.all]
        pairs = zip(before, self.all, strict=False)
        return [word for previous, word in pairs if previous not in _WITH_VALUE and word[:1] != "-"]


def _name(word: str) -> str:
    """Group or field that a word sets, without what Hydra writes before it."""
    return word.partition("=")[0].lstrip("+~")


def _as_sweep(name: str, *words: str) -> str:
    """How to try both, where a sweep can."""
    if name.startswith(("-", "hydra")):
        return ""
    return f", or try each in a sweep: -m {name}={','.join(word.partition('=')[2] for word in words)}"


def _quoted(path: Path) -> str:
    """A path in Hydra's grammar; its ``${`` would be an interpolation for OmegaConf, which reads it next.

    Both take a backslash for itself unless what they escape follows it.
    """
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path))
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), plain) + "'"
