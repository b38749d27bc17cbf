"""Small sets that the project itself writes, shaped as GLUE, SQuAD and Multi30k: no run needs a network.

``sample("mrpc")`` gives the splits of the hub's data set of that name with the same columns and
label encodings; every sentence comes from the templates in this package. Scores on them say
something about a pipeline, and nothing about these sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qexp.data.arrow import from_numpy, from_texts
from qexp.data.synthetic.cola import cola
from qexp.data.synthetic.entailment import mnli, rte
from qexp.data.synthetic.own_kinds import OWN_KINDS, OwnSet
from qexp.data.synthetic.paraphrase import mrpc, stsb
from qexp.data.synthetic.questions import qnli, qqp
from qexp.data.synthetic.retrieval import retrieval
from qexp.data.synthetic.splits import Maker, Row, SplitVocabulary, StableRandom, Text, rows
from qexp.data.synthetic.squad import AnswerSet
from qexp.data.synthetic.sst2 import sst2
from qexp.data.synthetic.translation import PairSet
from qexp.data.synthetic.vocabulary import SCIENCE
from qexp.data.synthetic.wnli import wnli
from qexp.errors import DataError

_ROWS = {"train": 1600, "validation": 400}
_QUESTIONS = {"train": 800, "validation": 200}
_PAIRS = {"train": 2000, "validation": 200, "test": 200}
_MNLI_ROWS = {"train": 2400, "validation_matched": 300, "validation_mismatched": 300}


@dataclass(frozen=True)
class _Set:
    """Columns, class shares and the maker of rows of one task."""

    columns: tuple[str, ...]
    shares: tuple[int, ...]
    maker: Maker
    sizes: Mapping[str, int]

    def tables(self, splits: Mapping[str, SplitVocabulary]) -> dict[str, pa.Table]:
        """Rows of every split."""
        made = rows(splits, self.sizes, self.shares, self.maker)
        return {name: _table(self, content) for name, content in made.items()}


def _classes(maker: Callable[[SplitVocabulary, int], Text]) -> Maker:
    def made(split: SplitVocabulary, label: int) -> Row:
        return maker(split, label), label

    return made


_PAIR = ("sentence1", "sentence2")
_SETS: dict[str, _Set | AnswerSet | PairSet | OwnSet] = {
    "cola": _Set(("sentence",), (3, 7), _classes(cola), _ROWS),
    "sst2": _Set(("sentence",), (1, 1), _classes(sst2), _ROWS),
    "mrpc": _Set(_PAIR, (1, 2), _classes(mrpc), _ROWS),
    "stsb": _Set(_PAIR, (1, 1, 2, 2, 2), stsb, _ROWS),
    "qqp": _Set(("question1", "question2"), (1, 1), _classes(qqp), _ROWS),
    "mnli": _Set(("premise", "hypothesis"), (1, 1, 1), _classes(mnli), _MNLI_ROWS),
    "ax": _Set(("premise", "hypothesis"), (1, 1, 1), _classes(mnli), {"test": 300}),
    "qnli": _Set(("question", "sentence"), (1, 1), _classes(qnli), _ROWS),
    "rte": _Set(_PAIR, (1, 1), _classes(rte), _ROWS),
    "wnli": _Set(_PAIR, (1, 1), _classes(wnli), _ROWS),
    "squad": AnswerSet((1, 0), _QUESTIONS),
    "squad_v2": AnswerSet((2, 1), _QUESTIONS),
    "multi30k_en_de": PairSet(_PAIRS),
    "wmt14_en_de": PairSet(_PAIRS),
    **OWN_KINDS,
}


def sample(task: str, seed: int = 0) -> dict[str, pa.Table]:
    """The built-in sample of a GLUE task, of SQuAD, of a translation or of a kind of task.

    Args:
        task: cola, sst2, mrpc, stsb, qqp, mnli, ax, qnli, rte, wnli, squad, squad_v2,
            multi30k_en_de, wmt14_en_de, reranking, multi_label or token_classification; ``embedding`` has
            the rows of stsb under other names of columns, and ``retrieval`` the passages and questions of
            squad in BEIR's layout.
        seed: another seed gives other rows, and another division of the facts between the splits.

    Returns:
        Tables by split name: the text columns (string), ``label`` (int64; float32 for stsb) and
        ``idx`` (int32, the row number within the split); for squad and squad_v2 ``id``, ``title``,
        ``context``, ``question`` (string) and ``answers``, a struct of the lists ``text`` (string) and
        ``answer_start`` (int32, characters of the context), empty where there is no answer; for translations
        ``en`` and ``de`` (string); for the last three, the columns of such a task (strings, and lists of
        them). The same bytes for the same seed on every platform.

    Raises:
        DataError: there is no sample for the task.
    """
    if task == "embedding":
        names = ["text", "text_pair", "label", "idx"]
        return {split: table.rename_columns(names) for split, table in sample("stsb", seed).items()}
    if task == "retrieval":
        return retrieval(sample("squad", seed))
    if task not in _SETS:
        raise DataError(
            f"task: there is no built-in sample for {task!r}; it exists for {', '.join(_SETS)}, embedding, "
            "retrieval. Choose one of these, or take the rows from data=local or data=hub."
        )
    made = _SETS[task]
    return made.tables({name: _split(task, name, seed) for name in made.sizes})


def _split(task: str, name: str, seed: int) -> SplitVocabulary:
    dice = StableRandom(f"qexp sample {task} {name} {seed}")
    if name == "validation_mismatched":
        return SplitVocabulary(dice, seed, validation=True, genre=SCIENCE)
    return SplitVocabulary(dice, seed, validation=name != "train")


def _table(made: _Set, content: list[Row]) -> pa.Table:
    columns = {name: from_texts([texts[i] for texts, _ in content]) for i, name in enumerate(made.columns)}
    kind = np.float32 if made.maker is stsb else np.int64
    columns["label"] = from_numpy(np.array([value for _, value in content], kind))
    columns["idx"] = from_numpy(np.arange(len(content), dtype=np.int32))
    return pa.table(columns)


__all__ = ["sample"]
