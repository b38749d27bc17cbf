"""MLflow tracker, the only module that depends on mlflow.

A page is a run of MLflow. A run that is filled anew replaces the one before, so that nothing is duplicated.
The source, user and Git commit that ``mlflow.start_run`` would add are not sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.config import Mlflow
from qexp.records.outcome import Outcome
from qexp.reporting.run_view import leaves
from qexp.tracking.tracker import (
    CloseResult,
    Page,
    PageContent,
    PageState,
    Picture,
    curve_digests,
    without_secrets,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS, PARAMETERS = 1000, 100
"""Largest numbers of metrics and of parameters that MLflow takes in one request."""
LONGEST_VALUE = 500
"""Characters of the longest value of a parameter that every store of MLflow keeps."""
STATUSES: Mapping[Outcome, str] = {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""Status of a run of MLflow, by what became of ours."""
ATTEMPTS = 2
"""Times that a server is asked, where MLflow asks eight times."""


class MlflowPage:
    """Run of MLflow, on a server, in a database or in a folder."""

    def __init__(self, config: Mlflow, outputs: Path) -> None:
        self._outputs = outputs.absolute() / "mlflow"
        self._uri = (
            config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._outputs}/mlflow.db"
        )
        self.target = f"{without_secrets(self._uri)}#{config.experiment}"
        self.takes_graphs = config.upload_onnx
        self._config = config
        self._client: MlflowClient | None = None
        self._run = ""

    def holds(self, filed: PageState) -> bool:
        """Return whether the run still exists and was not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._connected().get_run(filed.folder).info.lifecycle_stage == "active")
        except MlflowException:
            return False

    def open(self, page: Page, filed: PageState | None) -> str:
        """Create a run, and delete the earlier one of the same page.

        Raises:
            MlflowException: If the server does not answer or refuses.
        """
        client = self._connected()
        if filed:
            client.delete_run(filed.folder)
        tags = dict.fromkeys(page.tags, "") | {"task": page.job_type, "key": page.key}
        if page.group:
            tags["sweep"] = page.group
        if page.note:
            tags["mlflow.note.content"] = page.note
        self._run = client.create_run(self._experiment(client), tags=tags, run_name=page.name).info.run_id
        self._log_parameters(client, page)
        return f"run {self._run} in {self.target}; mlflow ui --backend-store-uri {without_secrets(self._uri)}"

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Log each score that is defined."""
        client = self._connected()
        for metric, score in scores.items():
            if score is not None:
                client.log_metric(self._run, f"{stage}/{metric}", score, step=0)

    def close(self, content: PageContent, pictures: Mapping[str, Picture]) -> CloseResult:
        """Log summary, losses, tables, pictures and the graph, and end the run.

        Raises:
            MlflowException: If the server does not answer or refuses.
        """
        client, run = self._connected(), self._run
        try:
            metrics = list(_metrics(content))
            for first in range(0, len(metrics), METRICS):
                client.log_batch(run, metrics=metrics[first : first + METRICS])
            for name in ("error", "interruption"):
                if why := content.summary.get(name):
                    client.set_tag(run, name, why)
            for name, table in content.tables.items():
                cells = {
                    column: [row[index] for row in table.rows] for index, column in enumerate(table.columns)
                }
                client.log_dict(run, cells, f"tables/{name}.json")
            for name, picture in pictures.items():
                client.log_image(run, picture, f"{name}.png")
            if content.graph:
                client.log_artifact(run, str(content.graph), "onnx")
        finally:
            client.set_terminated(run, STATUSES[content.status])
        return CloseResult(Path(run), curve_digests(content.curves))

    def _connected(self) -> MlflowClient:
        """Return the client of the server, made at the first call."""
        if self._client is None:
            for name, value in (
                ("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{max(1, round(self._config.timeout / ATTEMPTS))}"),
                ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", f"{ATTEMPTS - 1}"),
                ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ):
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient

            if self._is_own:
                self._outputs.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self._uri)
        return self._client

    @property
    def _is_own(self) -> bool:
        """Whether runs are in the database of the outputs folder."""
        return self._uri == f"sqlite:///{self._outputs}/mlflow.db"

    def _experiment(self, client: MlflowClient) -> str:
        """Return the id of the experiment, which is created if there is none."""
        name = self._config.experiment
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        place = str(self._outputs / "artifacts") if self._is_own else None
        return str(client.create_experiment(name, artifact_location=place))

    def _log_parameters(self, client: MlflowClient, page: Page) -> None:
        from mlflow.entities import Param

        parameters = [Param(str(path), str(value)[:LONGEST_VALUE]) for path, value in leaves(page.config)]
        for first in range(0, len(parameters), PARAMETERS):
            client.log_batch(self._run, params=parameters[first : first + PARAMETERS])


def _metrics(content: PageContent) -> Iterator[Metric]:
    """Return scores at step 0, and losses at their own steps."""
    import time

    from mlflow.entities import Metric

    now = int(1000 * time.time())
    for name, score in content.scores.items():
        yield Metric(name, score, now, 0)
    for name, curve in content.curves.items():
        for step, loss in zip(curve["step"], curve["loss"], strict=True):
            yield Metric(f"loss/{name}", loss, now, step)
