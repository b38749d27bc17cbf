"""Charts of Records, by the title of their gallery."""

from __future__ import annotations

from qexp.records.record import Record
from qexp.reporting.charts.galleries import galleries
from qexp.reporting.charts.spec import Chart, Gallery
from qexp.reporting.comparison import compare


def gallery(records: list[Record], title: str) -> Gallery:
    """The gallery of that title."""
    return next(each for each in galleries(compare(records)) if each.title == title)


def chart(records: list[Record], title: str) -> Chart:
    """The first chart of the gallery of that title."""
    return gallery(records, title).charts[0]
