"""The words of a command line, before Hydra reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from qexp.records import outputs_root

DRY_RUN = "--dry-run"
_WITH_VALUE = {
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--package",
    "-p",
    "--cfg",
}
_WITH_VALUE |= {"-c", "--info", "-i", "--experimental-rerun"}
"""Options that Hydra takes a word after."""
_QUESTIONS = {
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
}
"""Options with which Hydra answers and runs nothing; it wants all values in one piece."""
_NOT_WHAT = ("hydra/launcher", "hydra.launcher", "+hydra.launcher", "++hydra.launcher", "hydra.sweep.", "-")
"""How words begin that say how jobs are run, not which."""


class Words:
    """What stands behind ``python -m qexp``."""

    def __init__(self, words: Sequence[str]) -> None:
        self.all = list(words)

    @property
    def dry_run(self) -> bool:
        """Whether nothing should be computed."""
        return DRY_RUN in self.all

    def for_hydra(self, folder: Path | None = None) -> list[str]:
        """Words with what Hydra must know besides: where it writes, by default in a new folder.

        Hydra wants all values in one piece, so ours go before the first of them.
        """
        words = [word for word in self.all if word != DRY_RUN]
        if {"--help", "-h"} & {*words} and not any(word.startswith("task=") for word in words):
            words.append("task=mrpc")  # Hydra composes even for its help, and a task has no default
        more = []
        if folder is not None:
            more = [f"hydra.{mode}.dir={_quoted(folder)}" for mode in ("run", "sweep")]
        elif not any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in words):
            more = [f"hydra.sweep.dir={_quoted(self._sweep_folder)}"]
        place = next((words.index(word) for word in self._values() if not word.startswith("-")), len(words))
        return words if {*words} & _QUESTIONS else [*words[:place], *more, *words[place:]]

    @property
    def name(self) -> str:
        """Name of the sweep's file; ``sweep`` for one that was typed."""
        return Path(self._value("--config-name", "-cn") or "sweep").stem

    @property
    def identity(self) -> str:
        """Of a sweep: the same for the same jobs, however they are launched; 8 hexadecimal digits."""
        what = sorted(word for word in self._values() if not word.startswith(_NOT_WHAT))
        folder, name = self._value("--config-dir", "-cd"), self._value("--config-name", "-cn")
        file = Path(folder or ".") / f"{Path(name or '').stem}.yaml"
        content = file.read_text(encoding="utf-8") if name and file.is_file() else ""
        return hashlib.sha256("\n".join([self.name, content, *what]).encode()).hexdigest()[:8]

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

    def _values(self) -> list[str]:
        """Words that are no options and no options' values."""
        before = ["", *self.all]
        return [word for previous, word in zip(before, self.all, strict=False) if previous not in _WITH_VALUE]


def _quoted(path: Path) -> str:
    """A path in Hydra's grammar."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"
