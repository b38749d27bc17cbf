"""Detection of the kind of task, its columns and its labels, from a fine-tuned checkpoint and rows."""
