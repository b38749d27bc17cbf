"""Weights & Biases; the only file that knows it.

Local files of a page go to the outputs folder and never to the home folder. Of the machine, its user,
command line, environment, checkout and packages nothing is sent: the Record's own fields say what
a result needs.
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
from qexp.tracking.tracker import Closed, Content, Filed, Page, Picture, Table, curve_digests, without_secrets

if TYPE_CHECKING:
    import wandb

PROBE_SECONDS = 2.0
"""How long ``mode: auto`` waits for the server to answer."""
SYNCED = ".synced"
"""What ``wandb sync`` adds to the name of a file that it has sent, for a file of its own."""


class WandbPage:
    """A page on W&B, or the local files of one that ``wandb sync`` sends later."""

    def __init__(self, config: Wandb, outputs: Path) -> None:
        self.target = f"{config.entity or ''}/{config.project}"
        self.takes_graphs = config.upload_onnx
        self._config = config
        self._page: Page | None = None
        self._run: wandb.Run | None = None
        self._there: dict[str, str] = {}
        """Digests of the curves that the page has."""
        self._replaced: Path | None = None
        """Local files that were never sent, and that this page makes superfluous."""
        _stay_in(outputs)

    def holds(self, filed: Filed) -> bool:
        """What was sent once is W&B's; what was not is where it was written, or was done away with."""
        return True

    def open(self, page: Page, filed: Filed | None) -> str:
        """Online where that is possible, else offline; a page that W&B has is resumed by its id.

        Raises:
            Exception: whatever wandb raises when it cannot even write local files.
        """
        self._page = page
        if filed and _unsent(filed):
            self._replaced = Path(filed.folder)
        elif filed:
            self._there = dict(filed.curves)
        reason = self._why_offline()
        if reason is None:
            before = self._attempts()
            try:
                self._run = self._start("online")
            except Exception as error:
                reason = _told(error)
                self._forget(self._attempts() - before)
        if self._run is None:
            self._run = self._start("offline")
            return f"offline ({reason}); later: wandb sync {Path(self._run.dir).parent}"
        return str(self._run.url or "online")

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Put the scores into the page's summary, where the final ones replace them."""
        assert self._run is not None
        known = {f"{stage}/{metric}": score for metric, score in scores.items() if score is not None}
        self._run.summary.update(known)

    def close(self, content: Content, pictures: Mapping[str, Picture]) -> Closed:
        """Fill the page and wait until all is sent, at most ``timeout``."""
        assert self._run is not None
        folder = Path(self._run.dir).parent
        error = _within(self._config.timeout, lambda: self._fill(content, pictures))
        if error is not None:
            return Closed(
                folder, self._there, f"{_told(error)}; what is not on the page: wandb sync {folder}"
            )
        if self._replaced and self._replaced != folder:
            shutil.rmtree(self._replaced, ignore_errors=True)
        return Closed(folder, self._there)

    def _fill(self, content: Content, pictures: Mapping[str, Picture]) -> None:
        """What is written at once comes first; tables and the graph ask the server whether they may."""
        import wandb

        assert self._run is not None and self._page is not None
        run = self._run
        try:
            self._log_curves(content)
            run.summary.update(dict(content.summary))
            shown: dict[str, Any] = {name: wandb.Image(picture) for name, picture in pictures.items()}
            shown |= {f"tables/{name}": _table(table) for name, table in content.tables.items()}
            if shown:
                run.log(shown)
            if content.graph:
                artifact = wandb.Artifact(f"{self._page.name}-{self._page.key[:12]}", "model")
                artifact.add_file(
                    str(content.graph), policy="immutable"
                )  # as all in the store: without a copy
                run.log_artifact(artifact)
        finally:
            run.finish(exit_code=0 if content.status == "ok" else 1)

    def _log_curves(self, content: Content) -> None:
        """Losses over their own steps; a curve that the page has already is left alone."""
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
        """Why there is no point in trying to be online."""
        import wandb

        if self._config.mode == "offline":
            return "tracker.mode=offline"
        if (mode := os.environ.get("WANDB_MODE", "online")) != "online" and self._config.mode == "auto":
            return f"WANDB_MODE={mode}"
        known = wandb.setup().settings
        if not (known.api_key or known.identity_token_file or _has_key(known.base_url)):
            return "no API key; wandb login saves one"
        if self._config.mode == "auto" and not _answers(
            known.base_url, min(PROBE_SECONDS, self._config.timeout)
        ):
            return f"no answer from {known.base_url}"
        return None

    def _attempts(self) -> set[Path]:
        """Folders of times that the page was online."""
        assert self._page is not None
        return set((Path(os.environ["WANDB_DIR"]) / "wandb").glob(f"run-*-{self._page.key}"))

    def _forget(self, attempts: set[Path]) -> None:
        """End wandb's service, which holds the id of the page that it could not open; drop the empty logs."""
        import wandb

        with suppress(SystemExit):  # which wandb raises where its service came to a bad end
            wandb.teardown()
        for folder in attempts:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, mode: str) -> wandb.Run:
        import wandb

        assert self._page is not None
        page = self._page
        return wandb.init(
            project=self._config.project, entity=self._config.entity, id=page.key, resume="allow",
            name=page.name, group=page.group, job_type=page.job_type, tags=page.tags,
            config=dict(page.config), settings=_settings(mode, self._config.timeout),
        )  # fmt: skip


def _settings(mode: Any, timeout: float) -> wandb.Settings:
    """Silent, private, and never waiting long."""
    import wandb

    return wandb.Settings(
        mode=mode, reinit="create_new", silent=True, console="off",
        init_timeout=timeout, finish_timeout=timeout, finish_timeout_raises=True,
        save_code=False, disable_code=True, disable_git=True,
        x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True, x_save_requirements=False,
    )  # fmt: skip


def _stay_in(outputs: Path) -> None:
    """Have wandb write below the outputs folder, unless the user has named other places."""
    folder = outputs / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_DIR", str(outputs))  # where wandb makes its own folder "wandb"
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
    if not (Path.home() / ".config" / "wandb").exists():  # the server of wandb login --host stands there
        os.environ.setdefault("WANDB_CONFIG_DIR", str(folder / "config"))
    os.environ.setdefault("WANDB_SILENT", "true")


def _within(seconds: float, action: Callable[[], None]) -> BaseException | None:
    """What an action raised, if anything; wandb asks the server in places that know no timeout."""
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def act() -> None:
        try:
            action()
        except BaseException as error:  # among them SystemExit, which would end this thread in silence
            ended.put(error)
        else:
            ended.put(None)

    threading.Thread(target=act, daemon=True).start()
    try:
        return ended.get(timeout=seconds)
    except queue.Empty:
        return TimeoutError(f"not all was sent within tracker.timeout={seconds:g} s")


def _told(error: BaseException) -> str:
    """An error in a line, without what it may have read in the environment."""
    return without_secrets(f"{type(error).__name__}: {error}")


def _unsent(filed: Filed) -> bool:
    """Whether a page was only ever written here."""
    folder = Path(filed.folder)
    return folder.name.startswith("offline-") and folder.is_dir() and not any(folder.glob(f"*{SYNCED}"))


def _has_key(base_url: str) -> bool:
    """Whether the environment or the file of ``wandb login`` has a key for this server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    named = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for file in (Path(name).expanduser() for name in named):
        with suppress(OSError, netrc.NetrcParseError):
            return netrc.netrc(str(file)).authenticators(urlsplit(base_url).hostname or "") is not None
    return False


def _answers(base_url: str, seconds: float) -> bool:
    """Whether a server says anything; in a thread, because looking up a name can take longer than asked."""
    heard = threading.Event()

    def ask() -> None:
        with suppress(OSError):
            try:
                urllib.request.urlopen(base_url, timeout=seconds).close()
            except urllib.error.HTTPError as answer:
                answer.close()
            heard.set()

    threading.Thread(target=ask, daemon=True).start()
    return heard.wait(seconds)


def _table(table: Table) -> wandb.Table:
    import wandb

    return wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
