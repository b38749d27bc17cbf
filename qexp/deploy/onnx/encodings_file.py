"""Encodings as JSON in the versions that AIMET writes, from 0.6.1 to 2.0.0.

Versions 0.6.1 and 1.0.0 write ``x = (q + offset) * scale``, so the offset is the negative zero point of
unsigned integers, also where zero is in the middle. They have no word for the axis: channels are the outputs
of a product. Version 2.0.0 has ONNX's convention and names the axis.
Source: https://quic.github.io/aimet-pages/releases/latest/techniques/encoding_spec.html and files of
aimet-onnx 2.42.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qexp
from qexp.deploy.onnx.encodings import Encoding
from qexp.naming import EncodingsVersion

Named = Mapping[str, Encoding]
"""Encodings by the name of the tensor."""


def document(version: EncodingsVersion, activations: Named, weights: Named) -> dict[str, Any]:
    """Return the content of an encodings file."""
    head = {"version": version, "producer": {"package": "qexp", "version": qexp.__version__}}
    return head | _WRITERS[version](activations, weights)


def _in_0_6_1(activations: Named, weights: Named) -> dict[str, Any]:
    return {
        "activation_encodings": {name: _list(encoding) for name, encoding in activations.items()},
        "param_encodings": {name: _list(encoding) for name, encoding in weights.items()},
    }


def _list(encoding: Encoding) -> list[dict[str, Any]]:
    highest = 2**encoding.bits - 1
    return [
        {
            "bitwidth": encoding.bits,
            "dtype": "int",
            "is_symmetric": str(encoding.symmetric),
            "min": -zero * scale,
            "max": (highest - zero) * scale,
            "scale": scale,
            "offset": -zero,
        }
        for scale, zero in zip(encoding.scale, encoding.zero_point, strict=True)
    ]


def _in_1_0_0(activations: Named, weights: Named) -> dict[str, Any]:
    return {
        "excluded_layers": [],
        "activation_encodings": [_entry(name, encoding) for name, encoding in activations.items()],
        "param_encodings": [_entry(name, encoding) for name, encoding in weights.items()],
    }


def _entry(name: str, encoding: Encoding) -> dict[str, Any]:
    return {
        "name": name,
        "enc_type": "PER_TENSOR" if encoding.axis is None else "PER_CHANNEL",
        "dtype": "INT",
        "bw": encoding.bits,
        "is_sym": encoding.symmetric,
        "scale": list(encoding.scale),
        "offset": [-zero for zero in encoding.zero_point],
    }


def _in_2_0_0(activations: Named, weights: Named) -> dict[str, Any]:
    return {"encodings": [_onnx_entry(name, each) for name, each in {**activations, **weights}.items()]}


def _onnx_entry(name: str, encoding: Encoding) -> dict[str, Any]:
    """Return an entry as ONNX's operators have it: a symmetric grid is signed, and zeros are left out."""
    kind = f"int{encoding.bits}" if encoding.symmetric else f"uint{encoding.bits}"
    entry: dict[str, Any] = {"name": name, "output_dtype": kind, "y_scale": list(encoding.scale)}
    zeros = [] if encoding.symmetric else list(encoding.zero_point)
    if any(zeros):
        entry["y_zero_point"] = zeros
    if encoding.axis is not None:
        return entry | {"axis": encoding.axis}
    return {key: value[0] if isinstance(value, list) else value for key, value in entry.items()}


_WRITERS: Mapping[EncodingsVersion, Callable[[Named, Named], dict[str, Any]]] = {
    "0.6.1": _in_0_6_1, "1.0.0": _in_1_0_0, "2.0.0": _in_2_0_0,
}  # fmt: skip
