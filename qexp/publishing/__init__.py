"""Publication of a run's model as a folder that can be loaded without qexp."""
