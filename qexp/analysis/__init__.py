"""What ``python -m qexp inspect`` shows: the integers, scales and ranges of a run's quantized model."""
