"""Environment variables of this project: their names, and that none is misspelled."""

from __future__ import annotations

import difflib
import os

from qexp.errors import ConfigError

PREFIX = "QEXP_"
OUTPUTS_VARIABLE = "QEXP_OUTPUTS"
"""Names the folder for everything a run writes."""
ROOT_VARIABLE = "QEXP_DATA"
"""Names the local folder of rows, read where ``data.root`` is null."""
EXACT_VARIABLE = "QEXP_EXACT_INT8_PRODUCTS"
"""Whether engines compute integer products as on a CPU without VNNI: 1, or 0 for what the CPU has."""
KNOWN = {
    OUTPUTS_VARIABLE: "folder for everything a run writes",
    ROOT_VARIABLE: "folder with <task>/<split>.parquet",
    EXACT_VARIABLE: "1 asks for exact integer products on every CPU",
    "QEXP_CHROMIUM": "browser of the tests",
    "QEXP_TEST_GRAPHS": "folder of graphs that tests share",
}
"""All of them, with what they name."""


def unread_variable() -> str | None:
    """What to say of a variable with the project's prefix that nothing reads; None where there is none."""
    for name in sorted(name for name in os.environ if name.startswith(PREFIX)):
        if name not in KNOWN:
            nearest = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            known = ", ".join(f"{each} ({what})" for each, what in KNOWN.items())
            return (
                f"{name}={os.environ[name]}: no such environment variable of qexp; there are {known}; rename "
                f"it, or unset {name}{hint}"
            )
    return None


def check_environment() -> None:
    """See that every variable with the project's prefix is one that is read.

    Raises:
        ConfigError: Another one is set: a misspelled name would be passed over.
    """
    if problem := unread_variable():
        raise ConfigError(problem)
