"""Settings for decoding that a run chose for its models."""

from __future__ import annotations

from qexp.config import MultiLabelTask, Task
from qexp.records.record import Record


def decided_task(task: Task, record: Record, stage: str) -> Task:
    """Return a run's task with the thresholds of labels that were chosen for the model of a stage, if any."""
    notes = record.scoring.get(stage, {})
    chosen = next((note["thresholds"] for note in notes.values() if "thresholds" in note), None)
    if not isinstance(task, MultiLabelTask) or chosen is None:
        return task
    return task.decided_by([chosen[label] for label in task.labels])
