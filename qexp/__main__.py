"""Entry point of ``python -m qexp``."""

from qexp.cli.main import main

if __name__ == "__main__":
    main()
