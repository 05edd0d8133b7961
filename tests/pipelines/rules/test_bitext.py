from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.rules.bitext import identical_sides, length_ratio


def test_sides_with_the_same_letters_are_identical():
    texts = pa.array(["Fichier : 12", "Le pain", "Ouvrir", "seul"], pa.large_string())
    translations = pa.array(["fichier (3)", "The bread", "Ouvrir…", None], pa.large_string())
    assert identical_sides(texts, translations).tolist() == [1, 0, 1, 0]


def test_length_ratio_counts_the_longer_side_whichever_it_is():
    assert length_ratio(np.array([30, 10, 5, 7]), np.array([10, 30, 0, -1])).tolist() == [3, 3, 5, 0]
