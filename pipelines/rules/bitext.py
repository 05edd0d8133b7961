"""Hard rules for parallel documents, after bicleaner-hardrules: the two sides differ and have comparable lengths."""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

IDENTICAL, LENGTH_RATIO = "identical_sides", "length_ratio"


def identical_sides(texts: pa.Array, translations: pa.Array) -> np.ndarray:
    """float64[n]: 1 where both sides have the same letters once all else is removed, 0 elsewhere and for lone texts."""
    out = np.zeros(len(texts))
    pairs = pc.is_valid(translations)
    same = pc.equal(_letters(texts.filter(pairs)), _letters(translations.filter(pairs)))
    out[pairs.to_numpy(zero_copy_only=False)] = same.to_numpy(zero_copy_only=False)
    return out


def length_ratio(chars: np.ndarray, translation_chars: np.ndarray) -> np.ndarray:
    """float64[n]: characters of the longer side to the shorter, 0 for lone texts (`translation_chars` < 0)."""
    longer, shorter = np.maximum(chars, translation_chars), np.minimum(chars, translation_chars)
    return np.where(translation_chars < 0, 0.0, longer / np.maximum(shorter, 1))


def _letters(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(pc.utf8_lower(texts), r"\PL+", "")
