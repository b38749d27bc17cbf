"""Packing of small integers into int32, as ``pack-quantized`` files of compressed-tensors have them.

Eight 4-bit or sixteen 2-bit numbers share a word, the first in the lowest bits, each raised by half its range
to be unsigned. Rows are filled up with zero bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 32
PACKED_BITS = (2, 4)
"""Bit-widths that divide a word, so that every version of compressed-tensors packs them alike."""


def pack(integers: Tensor, bits: int) -> Tensor:
    """Return signed integers [rows, columns] as words, int32 [rows, ceil(columns * bits / 32)]."""
    per_word = WORD // bits
    rows, columns = integers.shape
    words = -(-columns // per_word)
    raised = torch.zeros(rows, words * per_word, dtype=torch.int64)
    raised[:, :columns] = integers.to(torch.int64) + 2 ** (bits - 1)
    shifts = torch.arange(per_word) * bits
    packed = (raised.reshape(rows, words, per_word) << shifts).sum(-1)
    words_of_rows: Tensor = packed.to(torch.uint32).view(torch.int32)
    return words_of_rows


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Return the signed integers of :func:`pack`, int8 [rows, columns]."""
    shifts = torch.arange(WORD // bits) * bits
    raised = (words.to(torch.int64).unsqueeze(-1) >> shifts) & (2**bits - 1)
    integers: Tensor = (raised.reshape(len(words), -1)[:, :columns] - 2 ** (bits - 1)).to(torch.int8)
    return integers
