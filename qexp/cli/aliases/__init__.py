"""Commands by their names of qexp 0.1, ``python -m qexp.report`` and so on; they go with version 0.2."""
