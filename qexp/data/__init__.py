"""Rows, tokens, batches, metrics and checkpoints: the inputs of a run, validated before use."""
