"""The stages: each reads artifacts and slices of the experiment, and leaves one artifact behind."""
