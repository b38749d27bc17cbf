"""Rows, tokens, batches, metrics and checkpoints: all that enters a run from outside, checked at the door."""
