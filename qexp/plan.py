"""What a command would do, before anything runs: ``python -m qexp.plan WORDS``."""

from __future__ import annotations

import sys

from qexp.cli import main as run
from qexp.words import DRY_RUN


def main() -> None:
    """Plan what the words ask for."""
    sys.argv = [*sys.argv, DRY_RUN]
    run()


if __name__ == "__main__":
    main()
