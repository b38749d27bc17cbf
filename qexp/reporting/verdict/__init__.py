"""Verdict on finished runs: which quantized model is within the accepted loss, and how fast it is.

``speed`` judges latencies, ``candidates`` lists the models and engines of a comparison's rows, ``verdict``
chooses among them, ``sentences`` words the answer and ``next_steps`` the commands. All are pure functions of
Records. ``score_intervals`` computes the intervals that a Record carries, from the predictions in the store.
"""
