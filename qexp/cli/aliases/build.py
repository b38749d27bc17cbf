"""``python -m qexp.build`` of qexp 0.1: use ``qexp build``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("build")
