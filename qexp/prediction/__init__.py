"""New rows in, predictions out."""
