"""The chunked loss against torch's own on whole logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.config import LOSS_CHUNK_ELEMENTS
from training.data import IGNORE
from training.loss import linear_cross_entropy

VOCAB = 331


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_chunked_loss_equals_plain_cross_entropy(reduction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks with a short last one, ignored targets, and weighted single losses on the way back."""
    monkeypatch.setitem(LOSS_CHUNK_ELEMENTS, "cpu", 7 * VOCAB)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(24, 16, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCAB, (24,), generator=generator)
    targets[:8] = IGNORE
    scale = torch.rand(24, generator=generator) if reduction == "none" else torch.tensor(0.3)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE, reduction=reduction)
    wanted = torch.autograd.grad((expected * scale).sum(), (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, targets, reduction)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad((loss * scale).sum(), (hidden, weight)), wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets, reduction), expected, rtol=1e-5, atol=1e-5)
