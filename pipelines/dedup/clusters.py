"""Which of a set of near-duplicates to keep, from *verified* pairs alone.

Taking connected components and keeping one document of each lets similarity drift along chains: a resembles b and b
resembles c, so c goes in favour of an a it does not resemble (on Debian's package descriptions one removal in eight).
Here documents are visited best first, and one goes only if it was itself compared with a document that stays.
"""

from __future__ import annotations

import numba
import numpy as np


def keepers(ranks: np.ndarray, ones: np.ndarray, others: np.ndarray, jaccards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For n documents, the one kept in each one's place (int64[n], its own number when it stays) and their Jaccard index.

    `ranks` int64[n] is a permutation, 0 for the document to prefer; edges are verified pairs of document numbers. A
    document that resembles several kept ones goes in favour of the most similar, then the better ranked. Two kept
    documents never have an edge.
    """
    n = len(ranks)
    ends = np.concatenate([ones, others]).astype(np.int64)
    order = np.argsort(ends, kind="stable")
    neighbours = np.concatenate([others, ones]).astype(np.int64)[order]
    starts = np.searchsorted(ends[order], np.arange(n + 1))
    return _keepers(np.argsort(ranks), ranks.astype(np.int64), starts, neighbours, np.concatenate([jaccards, jaccards])[order])


@numba.njit(cache=True)
def _keepers(best_first, ranks, starts, neighbours, weights):
    keeper = np.arange(len(ranks))
    value = np.ones(len(ranks), np.float64)
    for node in best_first:
        found, found_weight = node, -1.0
        for edge in range(starts[node], starts[node + 1]):
            other, weight = neighbours[edge], weights[edge]
            if ranks[other] > ranks[node] or keeper[other] != other:
                continue
            if weight > found_weight or (weight == found_weight and ranks[other] < ranks[found]):
                found, found_weight = other, weight
        if found != node:
            keeper[node], value[node] = found, found_weight
    return keeper, value
