"""CSV tracker: what a page shows, as files for a spreadsheet or pandas.

A page is a folder with ``hparams.yaml`` and ``metrics.csv``, the names of Lightning's CSVLogger, a file for
each table and a PNG file for each picture. It is rewritten completely each time.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qexp.config import Csv
from qexp.records.record import write_text
from qexp.tracking.tracker import Cell, CloseResult, Page, PageContent, PageState, Picture, curve_digests


class CsvPage:
    """Files in ``<outputs>/csv/<sweep or runs>/<name>-<key>``."""

    takes_graphs = False

    def __init__(self, config: Csv, outputs: Path) -> None:
        self.target = str(outputs / "csv")
        self._folder = Path(self.target)
        self._scores: dict[str, Cell] = {}

    def holds(self, filed: PageState) -> bool:
        """Return whether the folder still exists."""
        return Path(filed.folder).is_dir()

    def open(self, page: Page, filed: PageState | None) -> str:
        """Delete the earlier folder and create a new one with the settings of the run.

        Raises:
            OSError: If it cannot be written.
        """
        self._folder = folder = Path(self.target) / (page.group or "runs") / f"{page.name}-{page.key[:8]}"
        for earlier in {folder, Path(filed.folder)} if filed else {folder}:
            shutil.rmtree(earlier, ignore_errors=True)
        folder.mkdir(parents=True)
        settings = {"key": page.key, "tags": list(page.tags), "note": page.note, **page.config}
        write_text(folder / "hparams.yaml", json.dumps(settings, indent=1) + "\n")  # JSON is YAML
        return str(folder)

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Write all scores so far; ``close`` replaces them."""
        self._scores |= {f"{stage}/{metric}": score for metric, score in scores.items()}
        self._write("summary", ("name", "value"), self._scores.items())

    def close(self, content: PageContent, pictures: Mapping[str, Picture]) -> CloseResult:
        """Write summary, losses, tables and pictures.

        Raises:
            OSError: If the folder cannot be written.
        """
        from matplotlib.image import imsave

        self._write("summary", ("name", "value"), content.summary.items())
        losses = (
            (name, step, loss)
            for name, curve in content.curves.items()
            for step, loss in zip(curve["step"], curve["loss"], strict=True)
        )
        self._write("metrics", ("training", "step", "loss"), losses)
        for name, table in content.tables.items():
            self._write(f"tables/{name}", table.columns, table.rows)
        for name, picture in pictures.items():
            file = self._folder / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            imsave(file, picture)
        return CloseResult(self._folder, curve_digests(content.curves))

    def _write(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Write a table to ``<name>.csv``; an undefined value is an empty cell."""
        file = self._folder / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
