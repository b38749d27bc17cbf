"""``python -m qexp.predict`` of qexp 0.1: use ``qexp predict``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("predict")
