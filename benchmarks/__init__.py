"""Speed of the program itself, as ratios in one run."""
