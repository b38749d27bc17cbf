"""What a run made, as a folder that others can load without qexp."""
