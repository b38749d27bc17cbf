"""The kinds of task, by the class of their section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qexp.config import QuestionTask, Task, TextTask, TranslationTask
from qexp.lit.classification import Texts
from qexp.lit.family import Family
from qexp.lit.question_answering import Questions
from qexp.lit.translation import Translations

FAMILIES: Mapping[type[Task], Callable[[Any], Family]] = {
    QuestionTask: Questions,
    TextTask: Texts,
    TranslationTask: Translations,
}


def family_of(task: Task) -> Family:
    """What is known of the task's kind, for this task."""
    return FAMILIES[type(task)](task)
