"""Files as the GLUE benchmark distributes them: no quoting, headers of their own or none, words as labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.config import Data, TextTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.errors import DataError
from tests.conftest import experiment

QUOTE = 'He said "never'  # an odd quotation mark, as in the real files
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
MNLI = "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
FILES: dict[str, tuple[str, dict[str, str]]] = {
    "cola": (
        "CoLA",
        {
            "train.tsv": f"gj04\t1\t\t{QUOTE}.\nbc01\t0\t*\tOff she.\n",
            "dev.tsv": "gj04\t1\t\tThe sailors rode.\n",
        },
    ),
    "sst2": (
        "SST-2",
        {"train.tsv": f"sentence\tlabel\n{QUOTE} \t0\nfine \t1\n", "dev.tsv": "sentence\tlabel\nok\t1\n"},
    ),
    "stsb": (
        "STS-B",
        {
            "train.tsv": f"{STSB}0\tmain\tMSRvid\t2012\t0001\tnone\tnone\t{QUOTE}\tA plane.\t5.000\n"
            "1\tmain\tMSRvid\t2012\t0004\tnone\tnone\tA man.\tA man is.\t3.800\n",
            "dev.tsv": f"{STSB}0\tmain\tMSRvid\t2012\t0001\tnone\tnone\tA cat.\tA dog.\t1.25\n",
        },
    ),
    "qqp": (
        "QQP",
        {
            "train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
            f"133273\t213221\t213222\t{QUOTE}\tHow?\t0\n402555\t536040\t536041\tWhat?\tWhich?\t1\n",
            "dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n201359\t3\t4\tWho?\tWho is?\t1\n",
        },
    ),
    "mnli": (
        "MNLI",
        {
            "train.tsv": "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n"
            f"0\t31193n\t{QUOTE}\tNo.\tneutral\tneutral\n1\t2\tA.\tB.\tentailment\tentailment\n",
            "dev_matched.tsv": f"{MNLI}0\tA.\tD.\tneutral\tcontradiction\n",
            "dev_mismatched.tsv": f"{MNLI}0\tA.\tC.\tneutral\tneutral\n",
        },
    ),
    "qnli": (
        "QNLI",
        {
            "train.tsv": f"index\tquestion\tsentence\tlabel\n0\t{QUOTE}\tYes.\tnot_entailment\n",
            "dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tShe.\tentailment\n",
        },
    ),
    "rte": (
        "RTE",
        {
            "train.tsv": f"index\tsentence1\tsentence2\tlabel\n0\t{QUOTE}\tYes.\tnot_entailment\n",
            "dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tWho?\tShe.\tentailment\n",
        },
    ),
    "wnli": (
        "WNLI",
        {
            "train.tsv": f"index\tsentence1\tsentence2\tlabel\n0\t{QUOTE}\tYes.\t1\n",
            "dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tWho?\tShe.\t0\n",
        },
    ),
}
LABELS = {
    "cola": [1, 0], "sst2": [0, 1], "stsb": [5.0, pytest.approx(3.8)], "qqp": [0, 1], "mnli": [1, 0],
    "qnli": [1], "rte": [1], "wnli": [1],
}  # fmt: skip
MSR = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
PARTS = {
    "msr_paraphrase_train.txt": f"{MSR}1\t70\t71\t{QUOTE}\tB\n0\t80\t81\tC\tD\n1\t90\t91\tE\tF\n",
    "msr_paraphrase_test.txt": f"{MSR}0\t10\t11\tG\tH\n",
}


def read(root: Path, name: str) -> SourceRows:
    return resolve(Data(source="local", root=str(root)), experiment(f"task={name}").task)


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_the_benchmark(name: str, tmp_path: Path) -> None:
    folder, files = FILES[name]
    write(tmp_path / folder, files)
    rows = read(tmp_path, name)
    assert isinstance(rows.task, TextTask)
    train = rows.splits["train"]
    assert train["label"].to_pylist() == LABELS[name]
    assert QUOTE in train[rows.task.text[0]].to_pylist()[0]
    assert len(rows.splits) == len(files)
    assert not rows.notes


def test_a_test_set_has_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "RTE", {**FILES["rte"][1], "test.tsv": "index\tsentence1\tsentence2\n0\tWho?\tShe.\n"})
    task = experiment("task=rte", "task.evaluation.validation=test").task
    with pytest.raises(DataError, match=r"test\.tsv.*no column 'label'.*hidden"):
        resolve(Data(source="local", root=str(tmp_path)), task)


def test_the_original_files_of_mrpc(tmp_path: Path) -> None:
    write(tmp_path / "MRPC", {**PARTS, "dev_ids.tsv": "80\t81\n"})
    rows = read(tmp_path, "mrpc")
    assert rows.splits["train"].to_pydict() == {
        "id": [0, 1], "sentence1": [QUOTE, "E"], "sentence2": ["B", "F"], "label": [1, 1],
    }  # fmt: skip
    assert rows.splits["validation"]["sentence1"].to_pylist() == ["C"]
    task = experiment("task=mrpc", "task.evaluation.validation=test").task
    tested = resolve(Data(source="local", root=str(tmp_path)), task)
    assert tested.splits["test"]["label"].to_pylist() == [0]


def test_the_validation_split_of_mrpc_needs_the_list_of_its_ids(tmp_path: Path) -> None:
    write(tmp_path / "MRPC", PARTS)
    with pytest.raises(DataError, match=r"msr_paraphrase_train\.txt.*'validation'.*dev_ids\.tsv"):
        read(tmp_path, "mrpc")


def test_lines_with_other_numbers_of_values_are_told_up_to_a_share(tmp_path: Path) -> None:
    lines = [f"{each}\t1\t2\tWhat {each}?\tWhich?\t{each % 2}\n" for each in range(40)]
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    files = {
        "train.tsv": header + "".join([*lines[:20], "7\tcut\n", *lines[20:]]),
        "dev.tsv": header + lines[0],
    }
    write(tmp_path / "QQP", files)
    rows = read(tmp_path, "qqp")
    assert rows.splits["train"].num_rows == 40
    note, duplicate = rows.notes
    assert "1 of 1 rows" in duplicate
    assert "train.tsv" in note and "1 rows skipped" in note and "2.4 % of 41" in note and "line 22" in note
    write(tmp_path / "QQP", {"train.tsv": files["train.tsv"] + "cut\n" * 4})
    with pytest.raises(DataError, match=r"5 rows skipped.*data\.max_skipped=0\.05.*data\.max_skipped=0\.12"):
        read(tmp_path, "qqp")
    allowed = Data(source="local", root=str(tmp_path), max_skipped=0.12)
    assert resolve(allowed, experiment("task=qqp").task).splits["train"].num_rows == 40
