"""Take over the ranges that another tool found: ``qexp import FILE --output ranges.json``.

Exit codes: 0, written; 2, not written, with the reason and the next step on stderr; 130, interrupted, and
nothing was written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.cli.options import ended
from qexp.console import print_out
from qexp.errors import OK, QuantizationError, StoreError

if TYPE_CHECKING:
    from qexp.quant.calibration.imported import ImportedRange

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
"""First bytes of what torch.save writes, now and before version 1.6."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the ranges file, print its sites, and return the exit code."""
    options = _parser().parse_args(arguments)
    return ended("import", lambda: _import(options), "nothing was written")


def _import(options: argparse.Namespace) -> int:
    from qexp.quant.calibration.imported import write_imported
    from qexp.quant.messages import listed

    file: Path = options.file
    _refuse_pickle(file)
    if options.output.exists():
        raise StoreError(f"--output {options.output}: is there; name a new file, or remove it")
    ranges = _ranges(options)
    without = [each.name for each in ranges if not each.sites]
    if without and options.without_site == "refuse":
        raise QuantizationError(
            f"{file}: {len(without)} of {len(ranges)} ranges are of no site of a text encoder: "
            f"{listed(without)}; leave them out with --without-site ignore"
        )
    ranges = [each for each in ranges if each.sites]
    write_imported(options.output, file.name, ranges)
    print_out(_table(ranges, without))
    print_out(
        f"{len(ranges)} ranges written to {options.output}; use them with: calibrator=imported "
        f"calibrator.path={options.output}\n"
    )
    return OK


def _refuse_pickle(file: Path) -> None:
    """Refuse files whose loading could run code, by name and by content.

    Raises:
        QuantizationError: It is a pickle, or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise QuantizationError(f"{file}: cannot be read ({error.strerror}); name another file") from error
    if file.suffix in PICKLES or start.startswith(PICKLE_STARTS):
        raise QuantizationError(
            f"{file}: a pickle, which may run any code while it is loaded, so qexp never does; where you "
            "trust it, convert it yourself: safetensors.torch.save_file({name: tensor.contiguous() for "
            "name, tensor in torch.load(FILE, weights_only=True).items()}, 'model.safetensors')"
        )


def _ranges(options: argparse.Namespace) -> list[ImportedRange]:
    if options.file.suffix == ".safetensors":
        from qexp.models.amax_ranges import amax_ranges

        return amax_ranges(options.file)
    from qexp.models.encodings_ranges import encodings_ranges

    return encodings_ranges(options.file, options.onnx)


def _table(ranges: Sequence[ImportedRange], without: Sequence[str]) -> str:
    lines = [f"{'bits':>4}  {'low':>11}  {'high':>11}  {'ranges':>6}  name: sites"]
    lines += [
        f"{each.bits or '-':>4}  {min(each.low):11.5g}  {max(each.high):11.5g}  {len(each.high):6}  "
        f"{each.name}: {', '.join(each.sites)}"
        for each in ranges
    ]
    lines += [f"of no site, left out: {name}" for name in without]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp import",
        description="Converts ranges of another tool to a file for calibrator=imported, and lists their "
        "sites: AIMET encodings (0.6.1, 1.0.0, 2.0.0, 2.1.0, or keyed by modules), or a state dict with "
        "_amax of pytorch-quantization in safetensors, with the names of QDQBERT or FasterTransformer. More: "
        "docs/quantization.md.",
        epilog="Exit code 0: written; 2: it could not be, and stderr says why; 130: interrupted, and nothing "
        "was written.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="encodings, or .safetensors")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="ranges file to write; it must be new"
    )
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="graph of the encodings (default: the only one beside them)"
    )
    parser.add_argument(
        "--without-site",
        choices=("refuse", "ignore"),
        default="refuse",
        help="what to do if a range is of no site of a text encoder (default: refuse)",
    )
    return parser
