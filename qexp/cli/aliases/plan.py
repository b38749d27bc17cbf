"""``python -m qexp.plan`` of qexp 0.1: use ``qexp plan``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("plan")
