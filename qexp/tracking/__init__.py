"""Trackers, which mirror the results of runs elsewhere.

The Record is the only source of results: nothing is ever read back from a tracker, and a tracker that fails
costs a run only a warning.
"""
