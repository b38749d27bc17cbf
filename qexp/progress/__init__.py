"""What a run shows while it works: stages, steps, rates, and the time that is left."""
