"""Inputs invented without a fuzzer: kept ones, changed as some bytes say.

It is what the tests use, with hypothesis choosing the bytes and making them fewer, and what `./run fuzz` falls back on
where there is no atheris. The invariant: no bytes at all mean the first kept input as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.draw import Draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.targets import Target

CHANGES = 6  # at most, of one input


def mutated(target: Target, kept: Sequence[bytes], choices: bytes) -> bytes:
    """Return one of the `kept` inputs of `target`, changed as `choices` say."""
    draw = Draw(choices)
    data = kept[draw.below(min(len(kept), 1 << 16))]
    for _ in range(draw.below(CHANGES)):
        begin = draw.below(min(len(data) + 1, 1 << 16))
        end = begin + draw.below(16)
        how = draw.below(8)
        if how == 0:
            data = data[:begin] + bytes([draw.byte()]) + data[begin + 1 :]
        elif how == 1:
            data = data[:begin] + data[end:]
        elif how == 2:  # noqa: PLR2004 - one of eight
            data = data[:end] + data[begin:]
        elif how == 3 and target.tokens:  # noqa: PLR2004 - the same
            data = data[:begin] + draw.pick(target.tokens).encode("latin-1") + data[begin:]
        elif how == 4:  # noqa: PLR2004 - the same
            other = kept[draw.below(min(len(kept), 1 << 16))]
            data = data[:begin] + other[draw.below(min(len(other) + 1, 1 << 16)) :]
        elif how == 5:  # noqa: PLR2004 - the same
            data = data[:begin]
        else:
            data = data[:begin] + draw.take(draw.below(16)) + data[begin if how == 6 else end :]  # noqa: PLR2004
    return data[: target.longest]
