"""What a deployment may ask of engines that search, and of engines that do not."""

from __future__ import annotations

from qexp.config.deploy import AnyDeploy, NoDeploy
from qexp.config.runtimes import RUNTIMES
from qexp.config.task import Task
from qexp.config.translation import TranslationTask


def refuse_search_engines(task: Task, deploy: AnyDeploy) -> None:
    """Check runtimes of a translation, and that other tasks ask for no search.

    Raises:
        ValueError: A runtime has no cache for a search, or a task without a search has settings of one.
    """
    if isinstance(deploy, NoDeploy):
        return
    if isinstance(task, TranslationTask):
        able = [name for name, spec in RUNTIMES.items() if spec.states]
        if lacking := [name for name in deploy.runtimes if name not in able]:
            raise ValueError(
                f"deploy.runtimes={lacking} with task={task.name}: "
                f"engines of these runtimes return no cache to a search; allowed are {', '.join(able)}"
            )
        return
    for field in ("beams", "cache_bits"):
        if (value := getattr(deploy, field, None)) is not None:
            raise ValueError(
                f"deploy.{field}={value} with task={task.name}: only translations search; set "
                f"deploy.{field}=null"
            )
