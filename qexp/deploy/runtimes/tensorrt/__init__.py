"""Engines of TensorRT and TensorRT for RTX, which share one API under two names."""
