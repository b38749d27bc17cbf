"""Functions of models: what they refuse."""

from __future__ import annotations

import pytest
import torch

from qexp.context import RunContext
from qexp.errors import ModelError
from qexp.prediction.forward import _torch_runner
from tests.conftest import experiment
from tests.support import tiny_models


def test_a_row_longer_than_the_positions_is_refused(runtime: RunContext) -> None:
    model, task = tiny_models.build("roberta").eval(), experiment("task=mrpc").task
    run = _torch_runner(task, model, runtime)
    ids = torch.full((1, 31), 5)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": 0 * ids}
    assert run({name: values[:, :30] for name, values in batch.items()}).shape[0] == 1
    with pytest.raises(ModelError, match=r"31 tokens.*positions for 30.*task\.max_length=30"):
        run(batch)
