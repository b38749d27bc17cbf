"""TensorBoard tracker, the only module that depends on TensorBoard.

A page is a folder of event files. It is rewritten completely each time, so that nothing is duplicated.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.config import Tensorboard
from qexp.reporting.run_view import leaves
from qexp.tracking.tracker import CellTable, CloseResult, Page, PageContent, PageState, Picture, curve_digests

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardPage:
    """Event files in ``<outputs>/tensorboard/<sweep or runs>/<name>-<key>``."""

    takes_graphs = False

    def __init__(self, config: Tensorboard, outputs: Path) -> None:
        self.target = str(outputs / "tensorboard")
        self._page: Page | None = None
        self._writer: SummaryWriter | None = None
        self._shown: set[str] = set()

    def holds(self, filed: PageState) -> bool:
        """Return whether the folder still exists."""
        return Path(filed.folder).is_dir()

    def open(self, page: Page, filed: PageState | None) -> str:
        """Delete the earlier folder and create a new one.

        Raises:
            OSError: If it cannot be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(self.target) / (page.group or "runs") / f"{page.name}-{page.key[:8]}"
        for earlier in {folder, Path(filed.folder)} if filed else {folder}:
            shutil.rmtree(earlier, ignore_errors=True)
        self._page, self._writer = page, SummaryWriter(str(folder))
        self._writer.add_text("tags", ", ".join((page.job_type, *page.tags)))
        if page.note:
            self._writer.add_text("note", page.note)
        self._writer.add_text("config", _markdown(_listed(page)))
        self._writer.flush()
        return f"{folder}; tensorboard --logdir {self.target}"

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Write a scalar for each score, at step 0."""
        assert self._writer is not None
        for metric, score in scores.items():
            if score is not None:
                self._scalar(f"{stage}/{metric}", score)
        self._writer.flush()

    def close(self, content: PageContent, pictures: Mapping[str, Picture]) -> CloseResult:
        """Write scalars, curves, tables as Markdown, pictures, and the run's entry among hyperparameters.

        Raises:
            OSError: If the folder cannot be written.
        """
        assert self._writer is not None
        writer = self._writer
        for name, score in content.scores.items():
            self._scalar(name, score)
        for name, curve in content.curves.items():
            for step, loss in zip(curve["step"], curve["loss"], strict=True):
                writer.add_scalar(f"loss/{name}", loss, step)
        for name, table in content.tables.items():
            writer.add_text(f"tables/{name}", _markdown(table))
        for name, picture in pictures.items():
            writer.add_image(name, picture, dataformats="HWC")
        why = (content.summary.get(name) for name in ("error", "interruption"))
        writer.add_text("status", str(next(filter(None, why), content.status)))
        self._compare(content)
        writer.close()
        return CloseResult(Path(writer.log_dir), curve_digests(content.curves))

    def _scalar(self, name: str, value: float) -> None:
        assert self._writer is not None
        if name not in self._shown:
            self._writer.add_scalar(name, value, 0)
            self._shown.add(name)

    def _compare(self, content: PageContent) -> None:
        """Write the entry of the hyperparameters tab; ``add_hparams`` would create another folder for it."""
        from torch.utils.tensorboard.summary import hparams

        assert self._writer is not None and self._page is not None
        values = {str(path): _plain(value) for path, value in _listed(self._page).rows if value is not None}
        for part in hparams(values, content.scores):
            self._writer._get_file_writer().add_summary(part)


def _listed(page: Page) -> CellTable:
    return CellTable(("field", "value"), tuple(leaves(page.config)))


def _plain(value: object) -> str | float | int | bool:
    return value if isinstance(value, str | float | int) else str(value)


def _markdown(table: CellTable) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
