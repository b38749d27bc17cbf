"""Quantization in pure torch: integer grids, calibration, quantizers and their insertion into models."""
