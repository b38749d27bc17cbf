"""Everything that waits for a GPU, in one command that can be cut off and called again.

    python -m benchmarks.gpu --all [--folder outputs/gpu] [--minutes 9] [--tiny]

Each step is a process of its own with a limit, and leaves a file in the folder; a step whose file says that
it ended well is not run again, so a second call goes on where the first stopped. ``report.json`` and
``report.md`` hold what there is so far. ``--tiny`` tries the steps themselves, on a CPU too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import surroundings

TINY = ("--model", "tiny", "--rounds", "1")
QEXP = ("qexp", "task=mrpc", "data=sample", "quant=w8a8")


@dataclass(frozen=True)
class Step:
    """One process: a module and its words, and what it may take."""

    name: str
    words: tuple[str, ...]
    seconds: int
    refusable: bool = False
    """Whether exit code 2, a refusal before any work, is an answer."""

    def command(self, file: Path, tiny: bool) -> list[str]:
        """The command line; benchmarks write their figures into a file."""
        words = [sys.executable, "-m", *self.words]
        if self.words[0] == "qexp":
            return [*words, *(("data.train_rows=64", "budget=smoke") if tiny else ("machine=gpu",))]
        return [*words, *(tiny_words(self.words) if tiny else ()), "--json", str(file)]


def tiny_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """What makes a benchmark small."""
    if words[0] == "benchmarks.gpu":
        return (*TINY, "--rows", "1", "--lengths", "8", "--precisions", "int8,fp32")
    return (*TINY, "--batch", "2", "--mib", "1", "--length", "8", "--lengths", "8")


def _steps(name: str) -> tuple[str, ...]:
    return ("benchmarks.gpu_steps", name)


STEPS = (
    Step("kernels", _steps("kernels"), 60),
    Step("step fp32", (*_steps("step"), "--precision", "fp32"), 60),
    Step("step bf16", (*_steps("step"), "--precision", "bf16"), 60),
    Step("calibration", _steps("calibration"), 40),
    Step("memory", _steps("memory"), 60),
    Step("a run", QEXP, 150),
    Step("two processes", (*QEXP, "machine.devices=2", "deploy=none"), 150, refusable=True),
    Step("bert_base 128", ("benchmarks.gpu", "--model", "bert_base", "--lengths", "128"), 240),
    Step("bert_base 384", ("benchmarks.gpu", "--model", "bert_base", "--lengths", "384"), 240),
    Step("bert_large 128", ("benchmarks.gpu", "--model", "bert_large", "--lengths", "128"), 300),
    Step("bert_large 384", ("benchmarks.gpu", "--model", "bert_large", "--lengths", "384"), 300),
)
"""In the order of what is asked first; the last four compile for minutes."""


def run_step(step: Step, folder: Path, limit: float, tiny: bool) -> dict[str, Any]:
    """Run a step, and return what there is to keep of it."""
    figures, started = folder / f"{step.name}.figures.json", time.monotonic()
    figures.unlink(missing_ok=True)
    outputs = {"QEXP_OUTPUTS": str(folder / f"{step.name}.outputs")}
    command = step.command(figures, tiny)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=os.environ | outputs, check=False
        )
        code, text = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        code, text = None, f"cut off after {error.timeout:.0f} s"
    return {
        "command": command[1:],
        "code": code,
        "seconds": time.monotonic() - started,
        "text": text[-6000:],
        "figures": json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else None,
    }


def ended(step: Step, found: dict[str, Any] | None) -> bool:
    """Return whether a step has its answer."""
    return found is not None and found["code"] in ((0, 2) if step.refusable else (0,))


def report(folder: Path, found: dict[str, dict[str, Any]], steps: tuple[Step, ...]) -> str:
    """Write both reports and return the Markdown."""
    lines = ["# What was measured on the device", ""]
    for step in steps:
        one = found.get(step.name)
        if one is None:
            lines += [f"## {step.name}: not yet", ""]
            continue
        state = f"{one['seconds']:.0f} s" if ended(step, one) else f"failed, exit code {one['code']}"
        tables = [line for line in one["text"].strip().splitlines() if line.startswith("|")]
        shown = tables or one["text"].strip().splitlines()[-12:]
        lines += [f"## {step.name}: {state}", "", f"    python {' '.join(one['command'])}", "", *shown, ""]
    text = "\n".join(lines)
    (folder / "report.md").write_text(text, encoding="utf-8")
    document = {"surroundings": surroundings(), "steps": found}
    (folder / "report.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return text


def run_all(
    folder: Path, minutes: float, *, tiny: bool = False, steps: tuple[Step, ...] = STEPS
) -> dict[str, dict[str, Any]]:
    """Run the steps that have no answer yet, as long as there is time, and return all answers."""
    folder.mkdir(parents=True, exist_ok=True)
    end, found = time.monotonic() + 60 * minutes, dict[str, dict[str, Any]]()
    for step in steps:
        file = folder / f"{step.name}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        left = end - time.monotonic()
        if not ended(step, kept) and left > 5:
            kept = run_step(step, folder, min(step.seconds, left), tiny)
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            temporary.replace(file)
            print(f"{step.name}: exit code {kept['code']} after {kept['seconds']:.0f} s", flush=True)
        if kept is not None:
            found[step.name] = kept
        report(folder, found, steps)
    return found


def main(arguments: list[str]) -> int:
    """Run what is left, print the report, and return 0 if every step has its answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--minutes", type=float, default=9.0, help="for this call")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on a CPU too")
    options = parser.parse_args(arguments)
    found = run_all(options.folder, options.minutes, tiny=options.tiny)
    print(report(options.folder, found, STEPS))
    return 0 if all(ended(step, found.get(step.name)) for step in STEPS) else 1
