"""``python -m qexp.sensitivity`` of qexp 0.1: use ``qexp sensitivity``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("sensitivity")
