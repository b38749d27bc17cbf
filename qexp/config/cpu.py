"""The CPU that a quantized model is made for, and the weights that its fast products need.

Without VNNI instructions x86 adds pairs of products of uint8 by int8 in 16 bits, where the largest saturate.
With weights of 7 bits they cannot: ``2 * 255 * 64 < 2**15``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from qexp.environment import EXACT_VARIABLE
from qexp.naming import RuntimeName

Cpu = Literal["vnni", "avx2"]
"""Whether the fast products of 8-bit integers are exact, or add pairs in 16 bits as AVX2 does."""
CpuChoice = Literal["auto", "vnni", "avx2"]
"""A CPU, or the one that the run is composed on."""
CPU_INFO = Path("/proc/cpuinfo")
"""File in which Linux lists the instructions of each core."""
EXACT_INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Instructions that add four products of 8-bit integers in 32 bits."""
X86 = frozenset({"x86_64", "amd64", "i686", "i386"})
"""Machines, in small letters, whose products may add pairs in 16 bits."""
SATURATING: frozenset[RuntimeName] = frozenset({"onnxruntime", "openvino"})
"""Runtimes whose fast products add pairs in 16 bits on a CPU without VNNI."""
SAFE_BITS = 7
"""Bits of weights for which pairs of products with uint8 fit 16 bits."""


def this_cpu() -> Cpu:
    """Return the kind of the CPU that this process runs on.

    It is ``avx2`` where the environment forces exact products, and on x86 whose instructions are unknown.
    An emulator such as ``qemu-x86_64`` shows the instructions of its host.
    """
    if os.environ.get(EXACT_VARIABLE) == "1":
        return "avx2"
    if platform.machine().lower() not in X86:
        return "vnni"
    return "vnni" if EXACT_INSTRUCTIONS & cpu_flags() else "avx2"


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this CPU by Linux's names; none where they are not listed."""
    return frozenset(cpu_fields().get("flags", "").split())


def cpu_fields() -> dict[str, str]:
    """Return what Linux says of a core by name, such as ``model name``; nothing on another system."""
    if not CPU_INFO.exists():
        return {}
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in fields.items()}


def resolve_cpu(tree: dict[str, Any]) -> None:
    """Replace ``deploy.cpu: auto``, and give weights 7 bits where the CPU of the deployment needs them.

    Tables of embeddings keep their 8 bits, since no product reads their integers.
    """
    deploy = tree["deploy"] = {**tree["deploy"]}
    cpu = deploy.get("cpu")
    if cpu == "auto":
        deploy["cpu"] = cpu = this_cpu()
    if deploy.get("kind") == "none":
        deploy.pop("cpu", None)
    if cpu != "avx2" or not _may_saturate(tree):
        return
    quant = tree["quant"] = {**tree["quant"], "weight_bits": SAFE_BITS}
    if quant.get("embedding_bits") is None and "embedding.weight" in tree["placement"].get("sites", ()):
        quant["embedding_bits"] = 8


def _may_saturate(tree: Mapping[str, Any]) -> bool:
    """Return whether weights are multiplied as signed 8-bit integers in a runtime that adds pairs in 16 bits.

    Values that are no sections are left to validation. A run that exports nothing is for any runtime.
    """
    parts = [tree.get(name) for name in ("quant", "scheme", "placement")]
    if not all(isinstance(part, Mapping) for part in parts):
        return False
    quant, scheme, placement = ({**part} for part in parts if isinstance(part, Mapping))
    weight = scheme.get("weight")
    symmetric = not isinstance(weight, Mapping) or weight.get("symmetric", True)
    runtimes = tree["deploy"].get("runtimes") or SATURATING
    return bool(
        quant.get("weight_bits", 8) == 8
        and quant.get("activation_bits", 8) in range(2, 9)
        and not (quant.get("weight_format") or quant.get("activation_format"))
        and symmetric
        and "linear.weight" in placement.get("sites", ())
        and isinstance(runtimes, list | tuple | frozenset)
        and SATURATING & {str(each) for each in runtimes}
    )
