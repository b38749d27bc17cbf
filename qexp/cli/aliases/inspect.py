"""``python -m qexp.inspect`` of qexp 0.1: use ``qexp inspect``."""

from qexp.cli.main import run_alias

if __name__ == "__main__":
    run_alias("inspect")
