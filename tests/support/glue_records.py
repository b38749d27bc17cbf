"""Records of all GLUE tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from qexp.environment import conf_folder
from qexp.records.record import Record
from qexp.reporting.glue import TASKS
from tests.support.record_factory import experiment, record

KINDS = {task: yaml.safe_load((conf_folder() / "task" / f"{task}.yaml").read_text()) for task in TASKS}


def metrics_of(task: str) -> list[str]:
    """Keys of the task's scores."""
    splits, metrics = KINDS[task]["evaluation"], KINDS[task]["metrics"]
    return [f"{metric}@{split}" if len(splits) > 1 else metric for split in splits for metric in metrics]


def tree(task: str, quant: str = "w8a8", seed: int = 1, **sections: Any) -> dict[str, Any]:
    of_task = {name: value for name, value in KINDS[task].items() if name != "finetune"} | {"labels": ()}
    if of_task["kind"] == "classification":
        of_task["labels"] = KINDS[task]["labels"]
    of_task |= sections.pop("task", {})
    rate = {"kind": "full", "epochs": 3, **KINDS[task]["finetune"]}  # as the tasks' files have it
    rate["learning_rate"] = float(rate["learning_rate"])
    return experiment("mrpc", quant=quant, seed=seed, task=of_task, **{"finetune": rate, **sections})


def run(task: str, scores: Mapping[str, float | None], stage: str = "qat", **words: Any) -> Record:
    """A run whose last stage has these scores; all else is zero."""
    of_stages = {"fp32": ("fp32",), "ptq": ("fp32", "ptq"), "qat": ("fp32", "ptq", "qat")}[stage]
    method = {"kind": "none" if stage == "fp32" else stage}
    zeros = dict.fromkeys(metrics_of(task), 0.0)
    found = {name: zeros | (scores if name == stage else {}) for name in of_stages}
    return record(tree(task, **{"method": method, **words}), scores=found)


def row(numbers: str, stage: str = "qat", **words: Any) -> list[Record]:
    """Runs for a row of a published table: ``task`` and each metric with its number."""
    runs = []
    for part in numbers.split(";"):
        task, *scores = part.split()
        runs.append(run(task, dict(zip(scores[::2], map(float, scores[1::2]), strict=True)), stage, **words))
    return runs


def same(task: str, number: float) -> str:
    """One published number for a task with two metrics."""
    return f"{task} " + " ".join(f"{metric} {number}" for metric in metrics_of(task))


AIMET = (
    "cola matthews {};sst2 accuracy {};mrpc f1 {};%s;"
    "qqp accuracy {};mnli accuracy@matched {};qnli accuracy {};rte accuracy {}"
)


def aimet(*numbers: float) -> str:
    cola, sst2, mrpc, stsb, *rest = numbers
    return (AIMET % same("stsb", stsb)).format(cola, sst2, mrpc, *rest)


FULL = aimet(*range(50, 58))
