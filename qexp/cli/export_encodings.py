"""Write a quantized model for AIMET and Qualcomm's converters: ``qexp export-encodings RUN``.

Exit codes: 0, written; 2, not written, with the reason and the next step on stderr; 130, interrupted, and
nothing was written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from qexp.analysis.find_run import find_record
from qexp.cli.options import add_run, add_stage, ended
from qexp.errors import OK
from qexp.naming import EncodingsVersion
from qexp.records.record import outputs_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("export-encodings", lambda: _export(options), "nothing was written")


def _export(options: argparse.Namespace) -> int:
    from qexp.analysis.run_models import model_of, runtime_of
    from qexp.publishing.encodings import SUFFIX, check_suffix, export_encodings
    from qexp.publishing.new_folder import check_free

    if options.output is not None:
        check_suffix(options.output)
        check_free(options.output)
    outputs: Path = options.outputs or outputs_root()
    record = find_record(options.run, outputs)
    model = model_of(record, outputs, options.stage)
    folder = options.output or Path(f"{model.task.name}-{model.name}-{record.key[:12]}{SUFFIX}")
    ctx = runtime_of(record, outputs, "cpu")
    account = export_encodings(model, folder.absolute(), options.encodings_version, ctx)
    for sentence in (f"{model.title}: written to {folder}", *account):
        ctx.console.info(sentence)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp export-encodings",
        description="Writes a quantized model of a run as a float ONNX file with AIMET encodings beside it, "
        "in the folder that Qualcomm AI Hub takes. Bit-widths below 8 are kept. What is in the files: "
        "docs/deployment.md.",
        epilog="Exit code 0: written; 2: it could not be, and stderr says why; 130: interrupted, and nothing "
        "was written.",
    )
    add_run(parser)
    add_stage(parser, ("ptq", "qat"))
    parser.add_argument(
        "--encodings-version",
        choices=get_args(EncodingsVersion),
        default="1.0.0",
        help="of the encodings file; 2.0.0 needs QAIRT 2.37 or later (default: 1.0.0)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="new or empty; ends with .aimet (default: TASK-STAGE-RUN.aimet in the current folder)",
    )
    return parser
