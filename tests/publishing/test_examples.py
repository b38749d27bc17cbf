"""Examples of published folders: short, and with texts that a reader can replace by a list of his own."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from qexp.config import BiEncoderTask, Task, TranslationTask
from qexp.publishing.examples import with_onnxruntime, with_sentence_transformers, with_transformers
from tests.conftest import experiment

OWN = "data.path=rows.csv"
COLUMNS = [OWN, "data.text=body", "data.label=topic", "task.labels=[a,b]"]
TASKS = {
    "one text": (["task=sst2"], 1), "two texts": (["task=mrpc"], 2), "regression": (["task=stsb"], 2),
    "own text": (["task=classification", *COLUMNS], 1), "label sets": (["task=multi_label", *COLUMNS], 1),
    "question": (["task=squad"], 2), "question without answer": (["task=squad_v2"], 2),
    "tags": (["task=token_classification", OWN, "task.labels=[O,B-PER,I-PER]"], 1),
    "reranking": (["task=reranking", OWN], 2), "translation": (["task=multi30k_en_de"], 1),
    "embedding": (["task=stsb_embedding"], 1), "retrieval": (["task=squad_retrieval"], 1),
}  # fmt: skip
"""Overrides of a task of each kind, and how many texts a row has."""


def examples(task: Task) -> list[str]:
    found = [with_transformers(task, "m"), with_onnxruntime(task, "m", "g")]
    if isinstance(task, BiEncoderTask):
        found.append(with_sentence_transformers(task, "m", "g"))
    return [*filter(None, found)]


def called(code: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with which an example calls the tokenizer or encodes, by the example's own lines."""
    statements = ast.parse(code).body
    call = next(
        each
        for each in statements
        if isinstance(each, ast.Assign)
        and isinstance(each.value, ast.Call)
        and ast.unparse(each.value.func) in ("tokenizer", "model.encode")
    )
    texts = [each for each in statements if isinstance(each, ast.Assign) and _is_literal(each.value)]
    assert isinstance(call.value, ast.Call)
    call.value.func = ast.Name("record", ast.Load())
    world: dict[str, Any] = {"record": lambda *given, **named: (given, named)}
    exec(compile(ast.fix_missing_locations(ast.Module([*texts, call], [])), "example", "exec"), world)
    assert isinstance(call.targets[0], ast.Name)
    found: tuple[tuple[Any, ...], dict[str, Any]] = world[call.targets[0].id]
    return found


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", TASKS)
def test_each_text_is_a_list_in_a_variable_of_its_own(name: str) -> None:
    words, texts = TASKS[name]
    task = experiment(*words).task
    for example in examples(task):
        given, named = called(example)
        encodes = "model.encode" in example
        assert len(given) == texts and encodes is ("truncation" not in named)
        single = name.startswith("question")  # of one question, as its answer is read off one row
        assert all(isinstance(each, str if single else list) for each in given)
        assert single or [len(each) for each in given] == [1] * texts
        assert "*" not in example.partition("tokenizer(")[2].split(")")[0], "no unpacking"
        lines = [each for each in ast.parse(example).body if isinstance(each, ast.Assign)]
        of_names = [each for each in lines if isinstance(each.targets[0], ast.Name)]
        assert not any(isinstance(each.value, ast.Tuple) for each in of_names), "a comma at its end"


@pytest.mark.parametrize("name", TASKS)
def test_an_example_is_a_dozen_lines_of_python(name: str) -> None:
    task = experiment(*TASKS[name][0]).task
    assert (with_onnxruntime(task, "m", "g") is None) == isinstance(task, TranslationTask)
    for example in examples(task):
        compile(example, name, "exec")
        assert len([line for line in example.splitlines() if line]) <= 12
        assert max(map(len, example.splitlines())) <= 120
