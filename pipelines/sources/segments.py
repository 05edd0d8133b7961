"""Pairs of segments as the two line-aligned sides of a parallel document."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

RENDERED_SEPARATOR = " ||| "
"""What stands between the two sides when a parallel document is rendered; a segment must not hold it."""


def one_line(text: str) -> str:
    """A segment in NFC, on one line, single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def parallel_text(pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Both sides, one segment a line. Pairs that say the same on both sides, say nothing on one, or repeat are left out."""
    kept: dict[tuple[str, str], None] = {}
    for one, other in pairs:
        left, right = one_line(one), one_line(other)
        if left and right and left != right and RENDERED_SEPARATOR not in f"{left} {right}" and any(c.isalpha() for c in left):
            kept[left, right] = None
    return "\n".join(left for left, _ in kept), "\n".join(right for _, right in kept)
