"""``deploy.cpu``: which CPU a model is for, and the weights that follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from qexp.config import cpu
from qexp.environment import EXACT_VARIABLE
from tests.conftest import experiment

FAST = ("task=mrpc", "recipe=fast_cpu")


def pretend(
    monkeypatch: pytest.MonkeyPatch, folder: Path, flags: str | None, machine: str = "x86_64"
) -> None:
    """Make this machine one whose cores have these instructions; None lists none."""
    file = folder / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor\t: 0\nmodel name\t: some\nflags\t\t: {flags}\n\n", encoding="utf-8")
    monkeypatch.setattr(cpu, "CPU_INFO", file)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv(EXACT_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ("sse2 avx2 fma", "x86_64", "avx2"), ("avx2 avx512f avx512bw", "AMD64", "avx2"),
        ("avx2 avx_vnni", "x86_64", "vnni"), ("avx512f avx512_vnni", "x86_64", "vnni"),
        ("avx2 amx_int8", "x86_64", "vnni"), (None, "x86_64", "avx2"), (None, "arm64", "vnni"),
        ("asimd", "aarch64", "vnni"),
    ],
)  # fmt: skip
def test_auto_is_the_cpu_at_hand(
    flags: str | None, machine: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path, flags, machine)
    made = experiment(*FAST)
    assert made.deploy.model_dump()["cpu"] == made.identity["deploy"]["cpu"] == expected
    assert made.quant.name == ("w7a8-cpu" if expected == "avx2" else "w8a8-cpu")


def test_forced_exact_products_make_this_cpu_one_without_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path, "avx512_vnni")
    monkeypatch.setenv(EXACT_VARIABLE, "1")
    assert experiment(*FAST).quant.weight_bits == 7
    assert experiment(*FAST, "deploy.cpu=vnni").quant.weight_bits == 8


def test_a_resolved_experiment_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path, "avx2")
    made = experiment(*FAST)
    pretend(monkeypatch, tmp_path, "avx512_vnni")
    assert type(made).model_validate(made.model_dump()) == made


SEVEN = ("deploy.cpu=avx2",)


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        (("recipe=fast_cpu", *SEVEN), 7),
        (("recipe=best", *SEVEN), 7),  # asked for
        (("scheme=dynamic", "placement=linear", *SEVEN), 7),
        (("recipe=fast_cpu", "deploy=none"), 7),  # of a CPU at hand that has no VNNI
        (("recipe=best",), 8),  # not asked for
        (("recipe=fast_cpu", "deploy=torch_int8", *SEVEN), 8),  # exact there
        (("recipe=fast_cpu", "deploy=torch_int8", "deploy.runtimes=[torch_int8,openvino]", *SEVEN), 7),
        (("recipe=fast_cpu", "quant=w4a8", *SEVEN), 4),
        (("recipe=fast_cpu", "quant=w8a16", *SEVEN), 8),  # multiplied in floating point
        (("recipe=fast_cpu", "quant=w8a32", *SEVEN), 8),
        (("recipe=fast_cpu", "scheme.weight.symmetric=false", *SEVEN), 8),  # unsigned by unsigned
        (("quant=fp8", *SEVEN), 8),
    ],
)  # fmt: skip
def test_weights_that_may_saturate_get_7_bits(
    words: tuple[str, ...], bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path, "avx2")
    assert experiment("task=mrpc", "method=ptq", *words).quant.weight_bits == bits


def test_tables_keep_8_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path, "avx2")
    sites = "placement.sites=[linear.weight,linear.input,embedding.weight]"
    made = experiment("task=mrpc", "placement=linear", sites, "deploy.cpu=avx2")
    assert (made.quant.weight_bits, made.quant.embedding_bits, made.quant.name) == (7, 8, "w7a8e8")
    assert experiment(*FAST, "deploy.cpu=avx2").quant.embedding_bits is None


def test_records_of_other_recipes_have_the_fields_that_they_had() -> None:
    assert "cpu" not in experiment("task=mrpc").identity["deploy"]


def test_another_word_is_refused() -> None:
    with pytest.raises(ValidationError, match="'auto', 'vnni' or 'avx2'"):
        experiment("task=mrpc", "deploy.cpu=sse")
