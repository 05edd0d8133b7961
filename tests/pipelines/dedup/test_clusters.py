from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.clusters import keepers


def keep(n: int, edges: list[tuple[int, int, float]], ranks: list[int] | None = None) -> tuple[list[int], list[float]]:
    ones, others, weights = (np.array(side) for side in zip(*edges, strict=True))
    kept, values = keepers(np.array(ranks or range(n)), ones, others, weights)
    return kept.tolist(), values.tolist()


def test_the_best_ranked_of_a_star_stays():
    assert keep(4, [(0, 1, 0.9), (0, 2, 0.8), (3, 0, 0.85)], ranks=[0, 1, 2, 3]) == ([0, 0, 0, 0], [1.0, 0.9, 0.8, 0.85])


def test_similarity_does_not_drift_along_a_chain():
    kept, _ = keep(4, [(0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.9)])
    assert kept == [0, 0, 2, 2]


def test_the_most_similar_kept_document_takes_the_place():
    kept, values = keep(3, [(0, 2, 0.8), (1, 2, 0.95)])
    assert kept == [0, 1, 1]
    assert values[2] == 0.95


edges = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11), st.sampled_from([0.8, 0.9, 1.0])).filter(lambda e: e[0] != e[1]), min_size=1
)


@settings(max_examples=100, deadline=None)
@given(edges, st.permutations(range(12)), st.randoms())
def test_kept_documents_are_apart_removed_ones_tied_to_one_and_order_does_not_matter(pairs, ranks, random):
    weights = {frozenset(pair[:2]): pair[2] for pair in pairs}
    unique = [(*sorted(pair), weight) for pair, weight in weights.items()]
    kept, values = keep(12, unique, list(ranks))
    staying = {node for node in range(12) if kept[node] == node}
    assert not any(set(pair) <= staying for pair in weights)
    for node in set(range(12)) - staying:
        assert kept[node] in staying
        assert values[node] == weights[frozenset((node, kept[node]))]
        assert ranks[kept[node]] < ranks[node]
    random.shuffle(unique)
    assert keep(12, [(b, a, weight) for a, b, weight in unique], list(ranks)) == (kept, values)
