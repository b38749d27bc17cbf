"""Save a W&B workspace that groups the pages of all runs: ``qexp dashboard --entity ME``.

The Records in the outputs determine its panels. Saving a workspace needs an account; Records and pages do not
depend on it. A page beside them has the charts over all runs, and is written locally without an account.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.cli.options import add_outputs
from qexp.config import Wandb
from qexp.environment import unread_variable
from qexp.errors import FAILED, INVALID, OK, QexpError, StoreError
from qexp.naming import MODEL_STAGES
from qexp.records.record import Record, outputs_root, read_all, records_folder
from qexp.reporting.run_view import TRAINED
from qexp.tracking.tracker import Page, PageState, without_secrets

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

STAGES = (*MODEL_STAGES, "onnx")
PICTURES = ("layers", "outliers", "gate/distribution")
"""Charts of single runs that the workspace shows (:data:`qexp.tracking.page_charts.OF_RUN`)."""
CHARTS = "qexp-charts"
"""Id and name of the page with the charts over all runs of a project."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the workspace, print its URL, and return the exit code."""
    parser = argparse.ArgumentParser("qexp dashboard", description="Save a W&B workspace.")
    parser.add_argument("--entity", required=True, help="user or team that the pages belong to")
    parser.add_argument(
        "--project", default=Wandb.model_fields["project"].default, help="tracker.wandb.project"
    )
    parser.add_argument(
        "--charts",
        action="store_true",
        help="instead: fill a page with the charts over all runs, in local files without an account",
    )
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if problem := unread_variable():
        parser.error(problem)
    if find_spec("wandb_workspaces") is None:
        print("error: wandb-workspaces is not installed; pip install 'qexp[wandb]'", file=sys.stderr)
        return INVALID
    try:
        outputs = options.outputs or outputs_root()
        records, _ = read_all(records_folder(outputs))
        if options.charts:
            print(fill_charts(records, outputs, options.entity, options.project))
        else:
            print(workspace(records, options.entity, options.project).save().url)
    except Exception as error:  # wandb raises exceptions of many types
        message = str(error) if isinstance(error, QexpError) else f"{type(error).__name__}: {error}"
        print(f"error: {without_secrets(message)}", file=sys.stderr)
        return INVALID if isinstance(error, QexpError) else FAILED
    return OK


def fill_charts(records: Sequence[Record], outputs: Path, entity: str, project: str) -> str:
    """Fill the page of all runs, and return where it is.

    Raises:
        StoreError: Not all was sent; the message says how to send it.
        Exception: Whatever wandb raises if it cannot even write local files.
    """
    from qexp.tracking.page_charts import content_of_all
    from qexp.tracking.wandb import WandbPage

    content, pictures = content_of_all(records)
    tracker = WandbPage(Wandb(entity=entity, project=project), outputs)
    earlier = sorted((outputs / "wandb").glob(f"*run-*-{CHARTS}"))
    filed = PageState(tracker.target, "ok", digest="", folder=str(earlier[-1])) if earlier else None
    where = tracker.open(Page(CHARTS, CHARTS, group=None, job_type="charts", tags=(), config={}), filed)
    result = tracker.close(content, pictures)
    if result.unsent:
        raise StoreError(result.unsent)
    return where


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
        sections=[_scores(metrics), _seeds(metrics), _losses(), _costs(metrics), _activations()],
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Metric("JobType"), *bits]),
    )


def _scores(metrics: Sequence[str]) -> Section:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    bars = [
        panels.BarPlot(title=metric, metrics=[f"{stage}/{metric}" for stage in STAGES]) for metric in metrics
    ]
    return ws.Section(name="Scores", is_open=True, panels=bars)


def _seeds(metrics: Sequence[str]) -> Section:
    """Plot mean and standard deviation of each score over the runs of a group, which differ by their seed."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    bars = [
        panels.BarPlot(
            title=f"{metric}, mean and standard deviation over seeds",
            metrics=[f"{stage}/{metric}" for stage in STAGES],
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            aggregate=True,
        )
        for metric in metrics
    ]
    return ws.Section(name="Seeds", panels=bars)


def _losses() -> Section:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    lines = [panels.LinePlot(title=name, x=f"step/{name}", y=[f"loss/{name}"]) for name in ("fp32", *TRAINED)]
    return ws.Section(name="Losses", is_open=True, panels=lines)


def _costs(metrics: Sequence[str]) -> Section:
    """Plot scores of exported graphs and their losses over sizes, and over latencies for one row."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    points = [
        panels.ScatterPlot(
            title=f"{what}/{metric} by {cost}", x=f"summary:{cost}", y=f"summary:{what}/{metric}"
        )
        for metric in metrics
        for cost in ("bytes/int8", "latency/int8/1/p50_ms")
        for what in ("onnx", "score_loss")
    ]
    return ws.Section(name="Costs", panels=points)


def _activations() -> Section:
    """Show the heat map of noise, the outlier dimensions and the gate of each run."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    media = [panels.MediaBrowser(title=name, media_keys=[f"pictures/{name}"]) for name in PICTURES]
    return ws.Section(name="Activations", panels=media)
