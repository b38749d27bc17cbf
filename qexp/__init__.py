"""qexp: how low can I go on this task, on this hardware, what do I lose, and can I trust that number?"""

__version__ = "0.1.0"

# `python -m qexp.report` and its siblings of version 0.1, in a folder of their own until 0.2.
__path__.append(f"{__path__[0]}/cli/aliases")
