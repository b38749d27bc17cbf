"""Sections for trackers, which mirror results; no field is part of a cache key or a secret."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qexp.config.base import Section

LONGEST_TAG = 64
"""Characters of the longest tag that W&B accepts."""


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


def _check_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return tags that every tracker accepts as they are.

    Raises:
        ValueError: A tag is empty, too long, surrounded by spaces, has a slash, or is given twice.
    """
    for tag in tags:
        if not tag or tag != tag.strip() or "/" in tag or len(tag) > LONGEST_TAG:
            raise ValueError(
                f"tag {tag!r}: a tag has 1 to {LONGEST_TAG} characters, none of them a slash, and no space "
                "at "
                "its ends"
            )
    if twice := sorted({tag for tag in tags if tags.count(tag) > 1}):
        raise ValueError(f"each tag once; got {', '.join(twice)} twice")
    return tags


Tags = Annotated[tuple[str, ...], AfterValidator(_check_tags)]
AnyTracker = Annotated[NoTracker | Wandb | Tensorboard, Field(discriminator="kind")]
