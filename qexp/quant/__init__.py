"""Quantization, in pure torch: grids, calibrators, quantizers, and where they are inserted."""
