"""Prediction of new rows with the model of a run: readers, tasks and writers."""
