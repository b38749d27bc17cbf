"""``python -m qexp.publish`` of qexp 0.1: use ``qexp publish``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("publish")
