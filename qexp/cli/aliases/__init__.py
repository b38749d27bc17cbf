"""Module names of commands in qexp 0.1, such as ``python -m qexp.report``; to be removed in version 0.2."""
