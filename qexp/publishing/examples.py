"""Code examples for published folders, with plain transformers or ONNX Runtime, for the card and docs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qexp.config import (
    BiEncoderTask,
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    RerankingTask,
    RetrievalTask,
    Task,
    TextTask,
    TokenTask,
    TranslationTask,
)

_ONE = "The old man sees the bird."
_OTHER = "A bird is seen."
_WORDS = ["Anna", "sees", "the", "bird", "in", "Paris", "."]
_QUESTION, _CONTEXT = "Where is the bird?", "The bird is in the tree, and the cat is in the house."


@dataclass(frozen=True)
class _Input:
    """What an example gives to the tokenizer."""

    texts: Mapping[str, str | Sequence[object]]
    """Value of each variable, by its name; one for each text of a row."""
    cut: str
    """Arguments on padding and truncation, which are those of training."""

    @property
    def assignments(self) -> str:
        """Lines that set the variables."""
        return "\n".join(f"{name} = {json.dumps(value)}" for name, value in self.texts.items())

    @property
    def arguments(self) -> str:
        """Arguments of the tokenizer."""
        return ", ".join([*self.texts, self.cut])


def with_transformers(task: Task, folder: str) -> str:
    """Return Python code that needs only torch and transformers."""
    return _TRANSFORMERS[type(task)](task, folder)


def with_onnxruntime(task: Task, folder: str, graph: str) -> str | None:
    """Return Python code that needs only ONNX Runtime and a tokenizer; None for tasks without a graph."""
    if isinstance(task, TranslationTask):
        return None
    given = _input_of(task)
    output = "vectors" if isinstance(task, BiEncoderTask) else "logits"
    return f"""\
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.x64quantprecision", "1")  # exact on every CPU
session = onnxruntime.InferenceSession("{folder}/{graph}", options)
{given.assignments}
rows = tokenizer({given.arguments}, return_tensors="np")
{output} = session.run(None, {{each.name: rows[each.name] for each in session.get_inputs()}})[0]
{_ONNX_ANSWER[type(task)](task)}"""


def _texts(task: TextTask, folder: str) -> str:
    answer = "[model.config.id2label[place] for place in logits.argmax(-1).tolist()]"
    return _transformers(
        task,
        folder,
        auto="AutoModelForSequenceClassification",
        work="logits = model(**rows).logits",
        answer=f"print({'logits[:, 0].tolist()' if task.kind == 'regression' else answer})",
    )


def _label_sets(task: MultiLabelTask, folder: str) -> str:
    return _transformers(
        task,
        folder,
        auto="AutoModelForSequenceClassification",
        work="logits = model(**rows).logits",
        answer=f"thresholds = torch.tensor({list(task.thresholds)})\n"
        "for row in logits.sigmoid() > thresholds:\n"
        "    print([model.config.id2label[place] for place in row.nonzero()[:, 0].tolist()])",
    )


def with_sentence_transformers(task: BiEncoderTask, folder: str, graph: str) -> str:
    """Return Python code that needs sentence-transformers with its ONNX backend."""
    return f"""\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}", backend="onnx", model_kwargs={{"file_name": "{graph}"}})
sentences = {json.dumps([_ONE])}
vectors = model.encode(sentences{_prompt_name(task)})
print(vectors.shape)
"""


def _prompt_name(task: BiEncoderTask) -> str:
    """Return the argument that names the prompt of a query, if there is one."""
    return ', prompt_name="query"' if "query" in task.prompts else ""


def _prefixed(task: BiEncoderTask) -> str:
    """Return the text of the examples behind the prefix of texts, or of queries."""
    return (task.prompts.get("text") or task.prompts.get("query", "")) + _ONE


def _embeddings(task: BiEncoderTask, folder: str) -> str:
    mean = 'mask = rows["attention_mask"].unsqueeze(-1)\nvectors = (hidden * mask).sum(1) / mask.sum(1)\n'
    pooling = mean if task.pooling == "mean" else "vectors = hidden[:, 0]\n"
    return _transformers(
        task,
        folder,
        auto="AutoModel",
        work="hidden = model(**rows).last_hidden_state",
        answer=f"{pooling}print(torch.nn.functional.normalize(vectors).shape)",
    )


def _rerankings(task: RerankingTask, folder: str) -> str:
    return _transformers(
        task,
        folder,
        auto="AutoModelForSequenceClassification",
        work="logits = model(**rows).logits",
        answer="print(logits[:, 0].sigmoid().tolist())",
    )


def _tags(task: TokenTask, folder: str) -> str:
    return _transformers(
        task,
        folder,
        auto="AutoModelForTokenClassification",
        work="tags = model(**rows).logits.argmax(-1)[0].tolist()",
        answer="places = rows.word_ids(0)\n"
        "for number, word in enumerate(words[0]):\n"
        "    print(word, model.config.id2label[tags[places.index(number)]])",
    )


def _questions(task: QuestionTask, folder: str) -> str:
    return _transformers(
        task,
        folder,
        auto="AutoModelForQuestionAnswering",
        work="found = model(**rows)",
        answer="first, last = found.start_logits.argmax().item(), found.end_logits.argmax().item()\n"
        'print(tokenizer.decode(rows["input_ids"][0, first : last + 1]))',
    )


def _translations(task: TranslationTask, folder: str) -> str:
    search = f"num_beams={task.search.beams}, max_new_tokens={task.search.max_new_tokens}"
    return _transformers(
        task,
        folder,
        auto="AutoModelForSeq2SeqLM",
        work=f"words = model.generate(**rows, {search})",
        answer="print(tokenizer.batch_decode(words, skip_special_tokens=True))",
    )


def _transformers(task: Task, folder: str, auto: str, work: str, answer: str) -> str:
    given = _input_of(task)
    return f"""\
import torch
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = {auto}.from_pretrained("{folder}")
{given.assignments}
rows = tokenizer({given.arguments}, return_tensors="pt")
with torch.inference_mode():
    {work}
{answer}
"""


def _input_of(task: Task) -> _Input:
    """Return the texts of an example, each in a variable of its own, which a reader replaces by a list."""
    cut = f"padding=True, truncation=True, max_length={task.max_length}"
    if isinstance(task, QuestionTask):
        texts = {"question": _QUESTION, "context": _CONTEXT}
        return _Input(texts, f'truncation="only_second", max_length={task.max_length}')
    if isinstance(task, BiEncoderTask):
        return _Input({"sentences": [_prefixed(task)]}, cut)
    if isinstance(task, TokenTask):
        return _Input({"words": [_WORDS]}, f"is_split_into_words=True, {cut}")
    if isinstance(task, RerankingTask):
        return _Input({"queries": [_ONE], "documents": [_OTHER]}, cut)
    if isinstance(task, TextTask | MultiLabelTask):
        pair = {"first": [_ONE], "second": [_OTHER]}
        return _Input(pair if len(task.text) > 1 else {"sentences": [_ONE]}, cut)
    assert isinstance(task, TranslationTask)
    return _Input({"sentences": [task.prefix + _ONE]}, cut)


def _onnx_texts(task: TextTask) -> str:
    if task.kind == "regression":
        return "print(logits[:, 0].tolist())\n"
    return f"print([{json.dumps(list(task.labels))}[place] for place in logits.argmax(-1)])\n"


def _onnx_label_sets(task: MultiLabelTask) -> str:
    return (
        f"labels, thresholds = {json.dumps(list(task.labels))}, {list(task.thresholds)}\n"
        "for row in 1 / (1 + 2.718281828459045 ** -logits) > thresholds:\n"
        "    print([labels[place] for place in row.nonzero()[0]])\n"
    )


def _onnx_embeddings(task: BiEncoderTask) -> str:
    return "print(vectors.shape)\n"


def _onnx_rerankings(task: RerankingTask) -> str:
    return "print((1 / (1 + 2.718281828459045 ** -logits[:, 0])).tolist())\n"


def _onnx_tags(task: TokenTask) -> str:
    return (
        f"labels, places = {json.dumps(list(task.labels))}, rows.word_ids(0)\n"
        "for number, word in enumerate(words[0]):\n"
        "    print(word, labels[logits[0, places.index(number)].argmax()])\n"
    )


def _onnx_questions(task: QuestionTask) -> str:
    return (
        'first, last = logits[0].argmax(0)\nprint(tokenizer.decode(rows["input_ids"][0, first : last + 1]))\n'
    )


_TRANSFORMERS: Mapping[type[Task], Callable[..., str]] = {
    EmbeddingTask: _embeddings, MultiLabelTask: _label_sets, QuestionTask: _questions,
    RerankingTask: _rerankings, RetrievalTask: _embeddings, TextTask: _texts, TokenTask: _tags,
    TranslationTask: _translations,
}  # fmt: skip
_ONNX_ANSWER: Mapping[type[Task], Callable[..., str]] = {
    EmbeddingTask: _onnx_embeddings, MultiLabelTask: _onnx_label_sets, QuestionTask: _onnx_questions,
    RerankingTask: _onnx_rerankings, RetrievalTask: _onnx_embeddings, TextTask: _onnx_texts,
    TokenTask: _onnx_tags,
}  # fmt: skip
