"""A W&B workspace over the pages of all runs, grouped at once: ``python -m qexp dashboard --entity ME``.

What it has a panel for follows from the Records at hand. Saving a workspace takes an account; Records and
pages do not depend on it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.config import Wandb
from qexp.environment import unread_variable
from qexp.errors import FAILED, OK, QexpError
from qexp.records.record import Record, outputs_root, read_all, records_folder
from qexp.reporting.run_view import TORCH_STAGES, TRAINED
from qexp.tracking.tracker import without_secrets

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

STAGES = (*TORCH_STAGES, "onnx")


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the workspace and print its address; returns the exit code."""
    parser = argparse.ArgumentParser("qexp dashboard", description="Save a W&B workspace.")
    parser.add_argument("--entity", required=True, help="user or team that the pages belong to")
    parser.add_argument("--project", default=Wandb.model_fields["project"].default, help="tracker.project")
    parser.add_argument("--outputs", type=Path, help="folder that the runs wrote to")
    options = parser.parse_args(arguments)
    if problem := unread_variable():
        parser.error(problem)
    if find_spec("wandb_workspaces") is None:
        print("error: wandb-workspaces is not installed; pip install 'qexp[wandb]'", file=sys.stderr)
        return FAILED
    try:
        records, _ = read_all(records_folder(options.outputs or outputs_root()))
        print(workspace(records, options.entity, options.project).save().url)
    except Exception as error:  # wandb raises what it likes
        told = str(error) if isinstance(error, QexpError) else f"{type(error).__name__}: {error}"
        print(f"error: {without_secrets(told)}", file=sys.stderr)
        return FAILED
    return OK


def workspace(records: Iterable[Record], entity: str, project: str) -> Workspace:
    """Runs by sweep, task and bit-widths; panels of scores, losses and costs. Nothing is sent."""
    import wandb_workspaces.workspaces as ws

    known = list(records)
    metrics = sorted({metric for record in known for of in record.scores.values() for metric in of})
    bits = [ws.Config(f"quant.{name}_bits") for name in ("weight", "activation")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="qexp",
        sections=[_scores(metrics), _losses(), _costs(metrics)],
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Metric("JobType"), *bits]),
    )


def _scores(metrics: Sequence[str]) -> Section:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    bars = [
        panels.BarPlot(title=metric, metrics=[f"{stage}/{metric}" for stage in STAGES]) for metric in metrics
    ]
    return ws.Section(name="Scores", is_open=True, panels=bars)


def _losses() -> Section:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    lines = [panels.LinePlot(title=name, x=f"step/{name}", y=[f"loss/{name}"]) for name in ("fp32", *TRAINED)]
    return ws.Section(name="Losses", is_open=True, panels=lines)


def _costs(metrics: Sequence[str]) -> Section:
    """The exported graph's score against its size, and against its latency for one row."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    points = [
        panels.ScatterPlot(title=f"{metric} by {cost}", x=f"summary:{cost}", y=f"summary:onnx/{metric}")
        for metric in metrics
        for cost in ("bytes/int8", "latency/int8/1/p50_ms")
    ]
    return ws.Section(name="Costs", panels=points)
