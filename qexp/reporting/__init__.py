"""From many Records to comparison tables: pure functions, no torch, no pandas.

``facts`` reads one Record, ``selection`` decides which Records speak for a cell, ``settings`` finds
what tells rows apart, ``comparison`` builds one table for each task, kind of data and budget,
``layout`` puts it into words, and ``lines`` into machine-readable lines. ``runs`` has the final
table of a single run. ``groups`` finds runs of several tasks that belong to one row; ``glue`` takes
averages over tasks, ``overview`` sets all tasks side by side, ``losses`` has what quantization costs of each
score, and ``glue_table``, ``overview_table`` and ``loss_table`` lay them out. ``published`` reads the numbers
of others (``qexp/published``). ``contents`` is all of this at once, and ``document`` its text in each form,
by way of ``table`` (Markdown), ``lines`` (CSV), ``latex`` and ``json_form``.

Charts are plain values (``charts``), made by ``task_charts`` (with ``pareto``) and ``run_charts``, gathered
in ``galleries``, and drawn twice: into the one ``page`` (``svg``, ``scales``, ``html_table``, ``assets/``)
and into files by ``plots``, which alone needs matplotlib. ``pictures`` is what the command says of both.

Apart from these, two runs on the same rows: ``evaluations`` finds their predictions, ``paired`` compares them
(these two, and ``intervals`` over rows
and seeds, need numpy and pyarrow, so only the command imports them), ``pair_table`` puts it into words, and
``command`` says how to run a Record again.
"""
