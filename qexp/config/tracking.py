"""Sections for trackers, which mirror results; no field is part of a cache key or a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from qexp.config.base import Section

LONGEST_TAG = 64
"""Characters of the longest tag that W&B accepts."""


class Wandb(Section):
    """A page on Weights & Biases for each run; the key comes from ``wandb login`` or WANDB_API_KEY."""

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


class Mlflow(Section):
    """A run of MLflow for each run."""

    uri: str | None = Field(default=None, min_length=1)
    """Server, database or folder, as MLflow names it; null is MLFLOW_TRACKING_URI, or else a database in the
    outputs folder."""
    experiment: str = Field(default="qexp", min_length=1)
    """Experiment of MLflow that runs are filed under."""
    upload_onnx: bool = False
    """Add the exported ONNX file to the run."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds that a server has to answer when a run is opened."""

    @field_validator("uri")
    @classmethod
    def _has_no_secret(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in uri.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "the address has a user or a password, which Records would keep; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return uri


class Csv(Section):
    """CSV files in the outputs folder: settings, scores, losses and tables of each run."""


class Trackers(Section):
    """Trackers that mirror a run; none of them leaves results in the outputs folder alone."""

    wandb: Wandb | None = None
    """Weights & Biases; null is off."""
    tensorboard: Tensorboard | None = None
    """TensorBoard; null is off."""
    mlflow: Mlflow | None = None
    """MLflow; null is off."""
    csv: Csv | None = None
    """CSV files; null is off."""

    @model_validator(mode="before")
    @classmethod
    def _of_one_kind(cls, tree: Any) -> Any:
        """Read the form of earlier Records, a single section with its kind."""
        if isinstance(tree, Mapping) and "kind" in tree:
            rest = {name: value for name, value in tree.items() if name != "kind"}
            return {} if tree["kind"] == "none" else {tree["kind"]: rest}
        return tree

    @property
    def chosen(self) -> dict[str, Section]:
        """Sections of the trackers that are on, by name."""
        return {name: section for name in type(self).model_fields if (section := getattr(self, name))}


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
