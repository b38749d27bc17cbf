"""``python -m qexp.search`` of qexp 0.1: use ``qexp search``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("search")
