"""Save a W&B workspace that groups the pages of all runs: ``qexp dashboard --entity ME``.

The Records in the outputs determine its panels. Saving a workspace needs an account; Records and pages do not
depend on it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from qexp.cli.options import add_outputs
from qexp.config import Wandb
from qexp.environment import unread_variable
from qexp.errors import FAILED, INVALID, OK, QexpError
from qexp.naming import MODEL_STAGES
from qexp.records.record import Record, outputs_root, read_all, records_folder
from qexp.reporting.run_view import TRAINED
from qexp.tracking.tracker import without_secrets

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

STAGES = (*MODEL_STAGES, "onnx")


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the workspace, print its URL, and return the exit code."""
    parser = argparse.ArgumentParser("qexp dashboard", description="Save a W&B workspace.")
    parser.add_argument("--entity", required=True, help="user or team that the pages belong to")
    parser.add_argument(
        "--project", default=Wandb.model_fields["project"].default, help="tracker.wandb.project"
    )
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if problem := unread_variable():
        parser.error(problem)
    if find_spec("wandb_workspaces") is None:
        print("error: wandb-workspaces is not installed; pip install 'qexp[wandb]'", file=sys.stderr)
        return INVALID
    try:
        records, _ = read_all(records_folder(options.outputs or outputs_root()))
        print(workspace(records, options.entity, options.project).save().url)
    except Exception as error:  # wandb raises exceptions of many types
        message = str(error) if isinstance(error, QexpError) else f"{type(error).__name__}: {error}"
        print(f"error: {without_secrets(message)}", file=sys.stderr)
        return INVALID if isinstance(error, QexpError) else FAILED
    return OK


def workspace(records: Iterable[Record], entity: str, project: str) -> Workspace:
    """Create a workspace without sending it: runs by sweep, task and bit-widths; scores, losses and costs."""
    import wandb_workspaces.workspaces as ws

    all_records = list(records)
    metrics = sorted(
        {metric for record in all_records for scores in record.scores.values() for metric in scores}
    )
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
    """Plot the scores of exported graphs over their sizes, and over their latencies for one row."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    points = [
        panels.ScatterPlot(title=f"{metric} by {cost}", x=f"summary:{cost}", y=f"summary:onnx/{metric}")
        for metric in metrics
        for cost in ("bytes/int8", "latency/int8/1/p50_ms")
    ]
    return ws.Section(name="Costs", panels=points)
