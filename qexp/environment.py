"""Environment variables that qexp reads, a check for misspelled ones, and the folder of the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from qexp.errors import ConfigError, nearest_name

PREFIX = "QEXP_"
OUTPUTS_VARIABLE = "QEXP_OUTPUTS"
"""Folder for everything that a run writes."""
ROOT_VARIABLE = "QEXP_DATA"
"""Local folder of rows, read if ``data.root`` is null."""
CONF_VARIABLE = "QEXP_CONF"
"""Folder of one's own tasks, models and recipes, laid out as ``conf``."""
EXACT_VARIABLE = "QEXP_EXACT_INT8_PRODUCTS"
"""1 makes engines compute integer products as on a CPU without VNNI; 0 lets them use what the CPU has."""
KNOWN = {
    OUTPUTS_VARIABLE: "folder for everything a run writes",
    ROOT_VARIABLE: "folder with <task>/<split>.parquet, .csv, …",
    CONF_VARIABLE: "folder of your own tasks, models and recipes, laid out as conf/",
    EXACT_VARIABLE: "1 asks for exact integer products on every CPU",
    "QEXP_AIMET_PYTHON": "Python with aimet-onnx, of the tests",
    "QEXP_CHROMIUM": "browser of the tests",
    "QEXP_COMPRESSED_TENSORS_PYTHON": "Python with compressed-tensors and transformers, of the tests",
    "QEXP_CONFORMANCE": "1 makes .ci/run compare with the real programs",
    "QEXP_TEST_GRAPHS": "folder of graphs that tests share",
}
"""Variables that qexp reads, with their descriptions."""


def unread_variable() -> str | None:
    """Return a message about the first ``QEXP_`` variable that is unknown, or None if there is none."""
    for name in sorted(name for name in os.environ if name.startswith(PREFIX)):
        if name not in KNOWN:
            nearest = nearest_name(name, KNOWN)
            hint = f"; did you mean {nearest}?" if nearest else ""
            names = ", ".join(f"{each} ({what})" for each, what in KNOWN.items())
            return (
                f"{name}={os.environ[name]}: no such environment variable of qexp; there are {names}; rename "
                f"it, or unset {name}{hint}"
            )
    return None


def check_environment() -> None:
    """Check that every variable with the prefix ``QEXP_`` is known.

    Raises:
        ConfigError: An unknown variable is set; a misspelled name would otherwise be ignored.
    """
    if problem := unread_variable():
        raise ConfigError(problem)


def own_conf_folder() -> Path | None:
    """Return the folder of ``QEXP_CONF``; None if it is not set.

    Raises:
        ConfigError: There is no such folder.
    """
    if not (name := os.environ.get(CONF_VARIABLE)):
        return None
    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"{CONF_VARIABLE}={name}: no such folder; correct it, or unset {CONF_VARIABLE}")
    return folder


def check_fields_in(file: Path) -> None:
    """Check that a file of one's own configuration is YAML and holds fields.

    Raises:
        ConfigError: It is not, or holds a list or a single value.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no YAML: {' '.join(str(error).split())}; correct the file") from error
    if not (tree is None or isinstance(tree, dict)):
        raise ConfigError(
            f"{file}: holds {'a list' if isinstance(tree, list) else 'a single value'}; needed are fields, "
            "each on a line, such as name: mine"
        )


def refuse_hidden_options(folder: Path) -> None:
    """Refuse files of one's own that Hydra would pass over, because ``conf`` has an option of their name.

    Raises:
        ConfigError: There are such files.
    """
    own = (file.relative_to(folder) for file in sorted(folder.rglob("*.yaml")))
    if hidden := [str(file) for file in own if (conf_folder() / file).is_file()]:
        raise ConfigError(
            f"{folder}: qexp has options of these names, which would be taken instead: {', '.join(hidden)}; "
            "rename the files"
        )


def conf_folder() -> Path:
    """Return the folder ``conf``: within the package in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def sweeps_folder() -> Path:
    """Return the folder ``sweeps``: within the package in a wheel, next to it in a checkout."""
    return conf_folder().with_name("sweeps")
