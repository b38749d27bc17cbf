"""Analyses of the models of finished runs: layers, sensitivity, mixed precision, divergence of engines."""
