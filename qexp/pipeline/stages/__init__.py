"""Stages of the pipeline: each reads artifacts and sections of the experiment, and builds one artifact."""
