"""Logits of a float ONNX file with encodings, by aimet-onnx; run by a Python that has it.

Usage: aimet_logits.py FOLDER VERSION...; reads ``m.onnx``, ``rows.npz`` and ``<version>.encodings`` of the
folder, and writes ``<version>.npz`` with the logits and the number of quantizers that were enabled.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from aimet_onnx.quantsim import (  # type: ignore[import-not-found, unused-ignore]
    QuantizationSimModel,
    load_encodings_to_sim,
)


def main(folder: Path, versions: list[str]) -> None:
    rows = dict(np.load(folder / "rows.npz"))
    for version in versions:
        simulation = QuantizationSimModel(
            onnx.load(folder / "m.onnx"), config_file="default", providers=["CPUExecutionProvider"]
        )
        load_encodings_to_sim(simulation, str(folder / f"{version}.encodings"), strict=False)
        (logits,) = simulation.session.run(None, rows)
        enabled = sum(each.enabled for each in simulation.qc_quantize_op_dict.values())
        np.savez(folder / f"{version}.npz", logits=logits, enabled=enabled)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
