"""Write a run's model into a folder that is ready for the hub: ``qexp publish RUN FOLDER``.

Exit codes: 0, written; 2, not written, with the reason and the next step on stderr; 130, interrupted, and
nothing was written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_run, add_stage, ended
from qexp.errors import OK
from qexp.naming import MODEL_STAGES
from qexp.records.record import outputs_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("publish", lambda: _publish(options), "nothing was written")


def _publish(options: argparse.Namespace) -> int:
    from qexp.analysis.run_models import model_of, refuse_failed, runtime_of
    from qexp.publishing.folder import Publication, publish
    from qexp.publishing.new_folder import check_free
    from qexp.reporting.verdict.sentences import objection
    from qexp.reporting.verdict.verdict import verdicts

    outputs: Path = options.outputs or outputs_root()
    folder: Path = options.folder.absolute()
    check_free(folder)
    record = find_record(options.run, outputs)
    refuse_failed(record)
    model, ctx = model_of(record, outputs, options.stage), runtime_of(record, outputs, "cpu")
    for verdict in verdicts([record]) if model.quant_config else ():
        if text := objection(verdict):
            ctx.console.warn(text)
    publish(Publication(model, options.license), folder, outputs, ctx)
    ctx.console.info(f"{model.title}: written to {folder}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp publish",
        description="Writes a model of a run into a folder that plain transformers and plain ONNX Runtime "
        "load, with its ranges, its tokenizer and a model card. Nothing is uploaded. What lies in it: "
        "docs/using.md.",
        epilog="Exit code 0: written; 2: it could not be, and stderr says why; 130: interrupted, and nothing "
        "was written.",
    )
    add_run(parser)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new or empty; its name is the model's")
    add_stage(parser, MODEL_STAGES)
    parser.add_argument(
        "--license", metavar="NAME", help="of the model, as the hub calls it (default: left to be filled in)"
    )
    return parser
