"""The table of candidates: a row for each quantized model and engine, in 80 columns."""

from __future__ import annotations

from qexp.reporting.fit import fitted
from qexp.reporting.tables.candidates import candidate_table
from qexp.reporting.verdict.verdict import verdicts
from tests.support.verdict_records import engine, judged


def rows_of(*records: object, **columns: str) -> list[dict[str, str]]:
    (verdict,) = verdicts(records)  # type: ignore[arg-type]
    table = candidate_table(verdict)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_a_row_has_score_change_latency_size_and_gate() -> None:
    (row,) = rows_of(judged(-0.25))
    assert row == {
        "model": "W8A8 PTQ",
        "score": "87.75",
        "points": "-0.25",
        "95 % interval": "-0.40 to +0.60",
        "p50 (ms)": "5.0",
        "speedup": "2.40x",
        "MiB": "22.0",
        "gate": "passed",
    }


def test_the_caption_has_fp32_and_the_table_fits_80_columns() -> None:
    (verdict,) = verdicts([judged(-12.25, interval=(-14.25, -10.25)), judged(-0.2, quant="w4a4")])
    table = candidate_table(verdict)
    score, latency = table.caption
    assert "f1, FP32 88.00, 408 rows, 88.0 MiB" in score
    assert "ONNX Runtime, batch 1, 128 tokens, on Fast CPU; FP32 12.0 ms" in latency
    assert len(fitted(table, 80)) == 1
    assert {row["speedup"] for row in rows_of(judged(quant="w4a4"))} == {"simulated"}


def test_several_runtimes_have_a_column_and_a_model_without_engines_has_dashes() -> None:
    engines = {
        f"{name}/{kind}": engine(5.0) for name in ("onnxruntime", "openvino") for kind in ("fp32", "int8")
    }
    assert [row["engine"] for row in rows_of(judged(engines=engines))] == ["ONNX Runtime", "OpenVINO"]
    (row,) = rows_of(judged(engines={}, sections={"deploy": {"kind": "none"}}))
    assert {row[name] for name in ("p50 (ms)", "speedup", "MiB", "gate")} == {"-"}
