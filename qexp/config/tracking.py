"""Sections for trackers, which mirror results; no field is part of a cache key or a secret."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qexp.config.base import Section


class NoTracker(Section):
    """No tracker: results stay in the outputs folder."""

    kind: Literal["none"] = "none"
    """Tag of the section."""


class Wandb(Section):
    """A page on Weights & Biases for each run; the key comes from ``wandb login`` or WANDB_API_KEY."""

    kind: Literal["wandb"]
    """Tag of the section."""
    project: str = Field(default="qexp", min_length=1)
    """Project that pages are filed under."""
    entity: str | None = None
    """User or team; null is the default of the account."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """``auto`` is online if there is a key and the server answers within two seconds, else offline;
    ``online`` gives the server all of ``timeout`` to answer, and then goes offline too."""
    upload_onnx: bool = False
    """Add the exported ONNX file to the page."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds for opening a page, and again for sending what is left at the end of a run."""


class Tensorboard(Section):
    """Event files for TensorBoard in the outputs folder."""

    kind: Literal["tensorboard"]
    """Tag of the section."""


AnyTracker = Annotated[NoTracker | Wandb | Tensorboard, Field(discriminator="kind")]
