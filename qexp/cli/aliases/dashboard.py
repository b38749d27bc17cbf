"""``python -m qexp.dashboard`` of qexp 0.1: use ``qexp dashboard``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("dashboard")
