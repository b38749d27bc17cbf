"""Section of a task that tags each word of a text, as of named entities."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from qexp.config.task import Task

TagScheme = Literal["IOB2", "IOB1", "IOBES"]
"""How tags mark the first and the last word of a span."""
PREFIXES: dict[TagScheme, str] = {"IOB2": "BI", "IOB1": "BI", "IOBES": "BIES"}
"""Letters that a tag of each scheme begins with, besides the tag :data:`OUTSIDE`."""
OUTSIDE = "O"
"""Tag of a word that belongs to no span."""


def is_tag(name: str, scheme: TagScheme) -> bool:
    """Return whether a name is ``O``, or a letter of the scheme, a hyphen and a type, such as ``B-PER``."""
    letter, hyphen, kind = name[:1], name[1:2], name[2:]
    return name == OUTSIDE or (letter in PREFIXES[scheme] and hyphen == "-" and bool(kind.strip("-")))


def described(scheme: TagScheme) -> str:
    """Return the name of a scheme and the forms of its tags, for error messages."""
    forms = ", ".join(f"{letter}-TYPE" for letter in PREFIXES[scheme])
    return f"scheme={scheme}, whose tags are {OUTSIDE}, {forms}"


class TokenTask(Task):
    """A tag for each word of a text; spans of words with one type are what is found."""

    kind: Literal["token_classification"]
    """Tag of the section."""
    text: tuple[str] = ("tokens",)
    """Column with the list of a row's words."""
    label: str = "ner_tags"
    """Column with the list of their tags."""
    labels: tuple[str, ...] = ()
    """Tags in the order of the outputs; empty takes those of the train split."""
    scheme: TagScheme = "IOB2"
    """How tags mark spans: ``IOB2`` begins each with ``B-``, ``IOB1`` only one behind another of its type,
    and ``IOBES`` ends each with ``E-`` and marks single words with ``S-``."""

    @model_validator(mode="after")
    def _labels_are_tags(self) -> Self:
        for label in self.labels:
            if not is_tag(label, self.scheme):
                raise ValueError(f"labels: {label!r} is no tag of {described(self.scheme)}")
        if len({label.lower() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels: each tag has a name of its own, got {list(self.labels)}")
        if len(self.labels) == 1:
            raise ValueError(f"labels: {self.labels[0]!r} alone; name at least two tags")
        return self

    @property
    def outputs(self) -> int:
        """Width of the head: the number of tags."""
        return len(self.labels)
