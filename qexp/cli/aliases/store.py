"""``python -m qexp.store`` of qexp 0.1: use ``qexp store``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("store")
