"""A rule is data: the signal column it reads, the threshold it reads, and on which side of it a document fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rule:
    """`reason` is the code in the ledger, `column` a signal, `threshold` a field of `LanguageThresholds`.

    A document whose value equals the threshold passes.
    """

    reason: str
    column: str
    threshold: str
    lower_bound: bool

    def fails(self, values: np.ndarray, threshold: float) -> np.ndarray:
        """bool[n]: which of n values are on the wrong side."""
        return values < threshold if self.lower_bound else values > threshold

    @property
    def sign(self) -> str:
        """How a passing value stands to its threshold."""
        return ">=" if self.lower_bound else "<="


def at_least(reason: str, column: str, threshold: str) -> Rule:
    return Rule(reason, column, threshold, lower_bound=True)


def at_most(reason: str, column: str, threshold: str) -> Rule:
    return Rule(reason, column, threshold, lower_bound=False)
