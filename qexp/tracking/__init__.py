"""Mirrors of results elsewhere: what a tracker is told of a run, and the trackers.

A Record is the source and a tracker never is: nothing is ever read back from one, and one that fails
costs a run a warning.
"""
