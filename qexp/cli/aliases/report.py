"""``python -m qexp.report`` of qexp 0.1: use ``qexp report``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("report")
