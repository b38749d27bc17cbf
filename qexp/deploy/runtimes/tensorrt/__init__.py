"""What TensorRT and TensorRT for RTX have in common: one API under two names."""
