"""Experiments that quantize text encoders and measure accuracy, latency, and how far both can be trusted."""

__version__ = "0.1.0"

# Keeps `python -m qexp.report` and the other module names of version 0.1 working until 0.2.
__path__.append(f"{__path__[0]}/cli/aliases")
