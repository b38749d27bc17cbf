"""Training with Lightning, in one process or several."""
