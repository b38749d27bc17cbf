"""Weights & Biases tracker, the only module that depends on wandb.

Local files of a page go to the outputs folder and never to the home folder. Nothing about the machine, its
user, command line, environment and packages is sent: the Record's own fields have what a result needs.
"""

from __future__ import annotations

import netrc
import os
import queue
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qexp.config import Wandb
from qexp.records.outcome import Outcome
from qexp.tracking.tracker import (
    CellTable,
    CloseResult,
    Page,
    PageContent,
    PageState,
    Picture,
    curve_digests,
    without_secrets,
)

if TYPE_CHECKING:
    import wandb

PROBE_SECONDS = 2.0
"""Seconds that ``mode: auto`` waits for the server to answer."""
SYNCED = ".synced"
"""Suffix of the marker file that ``wandb sync`` writes for a file that it has sent."""
DELETED = "previously created and deleted"
"""What W&B answers, for ever, to the id of a page that was deleted there."""
EXIT_CODES: Mapping[Outcome, int] = {"ok": 0, "failed": 1, "interrupted": 255}
"""Exit code of a page by what became of the run; 255 is what wandb itself gives to a script after Ctrl-C."""
MAX_IDS = 4
"""Ids that a page is opened under, where those before were deleted; each costs ``timeout`` seconds, once."""


class WandbPage:
    """Page on W&B, or the local files of one that ``wandb sync`` sends later."""

    def __init__(self, config: Wandb, outputs: Path) -> None:
        self.target = f"{config.entity or ''}/{config.project}"
        self.takes_graphs = config.upload_onnx
        self._config = config
        self._page: Page | None = None
        self._run: wandb.Run | None = None
        self._id = ""
        """Id of the page on W&B: the run's key, with a number where earlier pages were deleted."""
        self._there: dict[str, str] = {}
        """Digest of each curve that the page has."""
        self._replaced: Path | None = None
        """Folder of local files that were never sent and that this page supersedes."""
        _stay_in(outputs)

    def holds(self, filed: PageState) -> bool:
        """Return True: a page is on W&B, or its local files are where they were written unless deleted."""
        return True

    def open(self, page: Page, filed: PageState | None) -> str:
        """Open the page online if possible, else offline; a page that W&B has is resumed by its id.

        Raises:
            Exception: Whatever wandb raises if it cannot even write local files.
        """
        self._page = page
        self._id = (filed and filed.id) or page.key
        if filed and _unsent(filed):
            self._replaced = Path(filed.folder)
        elif filed:
            self._there = dict(filed.curves)
        reason = self._why_offline() or self._open_online(page)
        if self._run is None:
            self._run = self._start("offline")
            return f"offline ({reason}); later: wandb sync {Path(self._run.dir).parent}"
        return str(self._run.url or "online")

    def _open_online(self, page: Page) -> str | None:
        """Open the page, under another id if the page of its id was deleted; return why it did not open."""
        reason, others = "", [f"{page.key}-{number}" for number in range(2, MAX_IDS + 1)]
        for page_id in dict.fromkeys([self._id, *others]):
            self._id, before = page_id, self._attempts(page_id)
            try:
                self._run = self._start("online")
                return None
            except Exception as error:
                reason = _error_line(error)
                self._forget(self._attempts(page_id) - before)
                if DELETED not in str(error):
                    break
                self._there = {}
        return reason

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Write the scores to the page's summary, where the final ones replace them."""
        assert self._run is not None
        summary = {f"{stage}/{metric}": score for metric, score in scores.items() if score is not None}
        self._run.summary.update(summary)

    def close(self, content: PageContent, pictures: Mapping[str, Picture]) -> CloseResult:
        """Fill the page and wait until all is sent, at most ``timeout`` seconds."""
        assert self._run is not None
        folder = Path(self._run.dir).parent
        error = _within(self._config.timeout, lambda: self._fill(content, pictures))
        if error is not None:
            unsent = f"{_error_line(error)}; what is not on the page: wandb sync {folder}"
            return CloseResult(folder, self._there, unsent, id=self._id)
        if self._replaced and self._replaced != folder:
            shutil.rmtree(self._replaced, ignore_errors=True)
        return CloseResult(folder, self._there, id=self._id)

    def _fill(self, content: PageContent, pictures: Mapping[str, Picture]) -> None:
        """Fill the page, first with what needs no reply; tables and the graph have to ask the server."""
        import wandb

        assert self._run is not None and self._page is not None
        run = self._run
        try:
            self._log_curves(content)
            if content.status == "interrupted":  # a resumed page gets the tags of the new start instead
                run.tags = (*(run.tags or ()), content.status)
            run.summary.update(dict(content.summary))
            shown: dict[str, Any] = {name: wandb.Image(picture) for name, picture in pictures.items()}
            tables = {name: _table(table) for name, table in content.tables.items()}
            shown |= {f"tables/{name}": table for name, table in tables.items()}
            shown |= {
                f"plots/{name}": wandb.plot.scatter(tables[name], *columns, title=name)
                for name, columns in content.scatters.items()
            }
            if shown:
                run.log(shown)
            if content.graph:
                artifact = wandb.Artifact(f"{self._page.name}-{self._page.key[:12]}", "model")
                # Artifacts in the store never change, so wandb needs no copy.
                artifact.add_file(str(content.graph), policy="immutable")
                run.log_artifact(artifact)
        finally:
            run.finish(exit_code=EXIT_CODES[content.status])

    def _log_curves(self, content: PageContent) -> None:
        """Log losses over their own steps, except for curves that the page already has."""
        assert self._run is not None
        for name, digest in curve_digests(content.curves).items():
            self._run.define_metric(f"loss/{name}", step_metric=f"step/{name}")
            if self._there.get(name) == digest:
                continue
            curve = content.curves[name]
            for step, loss in zip(curve["step"], curve["loss"], strict=True):
                self._run.log({f"step/{name}": step, f"loss/{name}": loss})
            self._there[name] = digest

    def _why_offline(self) -> str | None:
        """Return why an online page is not worth a try, or None."""
        import wandb

        if self._config.mode == "offline":
            return "tracker.wandb.mode=offline"
        if (mode := os.environ.get("WANDB_MODE", "online")) != "online" and self._config.mode == "auto":
            return f"WANDB_MODE={mode}"
        settings = wandb.setup().settings
        if not (settings.api_key or settings.identity_token_file or _has_key(settings.base_url)):
            return "no API key; wandb login saves one"
        if self._config.mode == "auto" and not _answers(
            settings.base_url, min(PROBE_SECONDS, self._config.timeout)
        ):
            return f"no answer from {settings.base_url}"
        return None

    def _attempts(self, page_id: str) -> set[Path]:
        """Return the local folders of the online runs of an id."""
        return set((Path(os.environ["WANDB_DIR"]) / "wandb").glob(f"run-*-{page_id}"))

    def _forget(self, attempts: set[Path]) -> None:
        """End wandb's service, which still holds the id of the page that failed to open, and delete logs."""
        import wandb

        with suppress(SystemExit):  # raised by wandb if its service crashed
            wandb.teardown()
        for folder in attempts:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, mode: str) -> wandb.Run:
        import wandb

        assert self._page is not None
        page = self._page
        return wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            id=self._id,
            resume="allow",
            name=page.name,
            group=page.group,
            job_type=page.job_type,
            tags=page.tags,
            notes=page.note,
            config=dict(page.config),
            settings=_settings(mode, self._config.timeout),
        )


def _settings(mode: Any, timeout: float) -> wandb.Settings:
    """Return settings that print nothing, send nothing private and limit every wait."""
    import wandb

    return wandb.Settings(
        mode=mode,
        reinit="create_new",
        silent=True,
        console="off",
        init_timeout=timeout,
        finish_timeout=timeout,
        finish_timeout_raises=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _stay_in(outputs: Path) -> None:
    """Make wandb write below the outputs folder, unless the user has set other folders."""
    folder = outputs / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_DIR", str(outputs))  # wandb creates its folder "wandb" there
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
    if not (Path.home() / ".config" / "wandb").exists():  # stores the server of wandb login --host
        os.environ.setdefault("WANDB_CONFIG_DIR", str(folder / "config"))
    os.environ.setdefault("WANDB_SILENT", "true")


def _within(seconds: float, action: Callable[[], None]) -> BaseException | None:
    """Run an action and return what it raised, or a TimeoutError after ``seconds``; None on success.

    Some of wandb's requests to the server have no timeout.
    """
    outcome: queue.Queue[BaseException | None] = queue.Queue()

    def run() -> None:
        try:
            action()
        except BaseException as error:  # includes SystemExit, which would end this thread silently
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.get(timeout=seconds)
    except queue.Empty:
        return TimeoutError(f"not all was sent within tracker.wandb.timeout={seconds:g} s")


def _error_line(error: BaseException) -> str:
    """Format an error as one line, without secrets from the environment."""
    return without_secrets(f"{type(error).__name__}: {error}")


def _unsent(filed: PageState) -> bool:
    """Return whether a page exists only as local files that were never sent."""
    folder = Path(filed.folder)
    return folder.name.startswith("offline-") and folder.is_dir() and not any(folder.glob(f"*{SYNCED}"))


def _has_key(base_url: str) -> bool:
    """Return whether the environment or the file of ``wandb login`` has a key for this server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in files):
        with suppress(OSError, netrc.NetrcParseError):
            return netrc.netrc(str(path)).authenticators(urlsplit(base_url).hostname or "") is not None
    return False


def _answers(base_url: str, seconds: float) -> bool:
    """Return whether a server answers, in a thread because a name lookup can exceed the timeout."""
    answered = threading.Event()

    def request() -> None:
        with suppress(OSError):
            try:
                urllib.request.urlopen(base_url, timeout=seconds).close()
            except urllib.error.HTTPError as error:
                error.close()
            answered.set()

    threading.Thread(target=request, daemon=True).start()
    return answered.wait(seconds)


def _table(table: CellTable) -> wandb.Table:
    import wandb

    return wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
