"""qexp: how low can I go on this task, on this hardware, what do I lose, and can I trust that number?"""

__version__ = "0.1.0"
