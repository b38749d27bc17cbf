"""Tables, charts and reports of many Records, as pure functions without torch and pandas.

``run_view`` reads one Record, ``attempts`` selects the Records that represent a cell, ``settings`` finds what
distinguishes rows, and ``comparison`` builds one comparison for each task, kind of data and budget.
``groups`` finds runs of several tasks that belong to one row, ``glue`` averages over tasks, ``overview`` sets
all tasks side by side, ``relative_loss`` has what quantization costs of each score, ``engines`` has what
runtimes built from the exported graphs, and ``published`` reads the published results of others
(``qexp/reporting/published``). ``report`` is all of this at once.

``table`` is a table of plain strings with its Markdown, ``tables`` builds one from each kind of result
(``tables.run`` the tables of a single run), and ``formats`` writes a whole report as Markdown, CSV, LaTeX,
JSON and HTML, or prints it on a terminal (``formats.terminal``), to whose width ``fit`` fits tables.
``verdict`` judges which quantized model can be deployed.

Charts are plain values (``charts.spec``), built by ``charts.comparison`` (with ``pareto``), ``charts.run``
and ``charts.sensitivity``, and collected in ``charts.galleries``. They are drawn twice: into the page of
``formats.html`` (``charts.svg``, ``charts.axes``, ``assets/``) and into files by ``charts.matplotlib``, which
alone needs matplotlib.

``predictions`` finds the predictions of two runs on the same rows and ``paired`` compares them. These two,
and ``intervals`` over rows and seeds, need numpy and pyarrow, so only the commands import them. ``command``
returns the command that repeats a Record, and ``best_runs`` selects the runs that are worth an engine.
"""
