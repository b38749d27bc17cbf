"""``python -m qexp.bench`` of qexp 0.1: use ``qexp bench``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("bench")
