"""The kinds of task, by the class of their section.

Each is imported when a task of it comes: a translation brings in half of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qexp.config import QuestionTask, Task, TextTask, TranslationTask
from qexp.tasks.base import Family


def _texts(task: TextTask) -> Family:
    from qexp.tasks.classification import Texts

    return Texts(task)


def _questions(task: QuestionTask) -> Family:
    from qexp.tasks.question_answering import Questions

    return Questions(task)


def _translations(task: TranslationTask) -> Family:
    from qexp.tasks.translation import Translations

    return Translations(task)


FAMILIES: Mapping[type[Task], Callable[[Any], Family]] = {
    QuestionTask: _questions,
    TextTask: _texts,
    TranslationTask: _translations,
}


def family_of(task: Task) -> Family:
    """What is known of the task's kind, for this task."""
    return FAMILIES[type(task)](task)
