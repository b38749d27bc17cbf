"""``python -m qexp.store``: the command line of :mod:`qexp.upkeep`."""

from __future__ import annotations

import sys

from qexp.upkeep import main

if __name__ == "__main__":
    sys.exit(main())
