"""Steps that do harm: found and skipped on the device, and gone round when there are many in a row.

A step is skipped when its loss or gradient norm is not finite, or above the mean of the last `window` steps that were taken
by more than `sigma` of their standard deviations (as OLMo-core's SkipStepOptimizer does, whose window also has the skipped
ones: there a row of equal spikes soon passes for normal). Spikes are looked for once the window is full, and a gradient norm
that would not be clipped is none: norms of small batches reach 8 deviations in a sound run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.config import SpikesConfig


class SpikeGuard:
    """The window, which is in every checkpoint. Losses and norms are the same on all workers, so what they decide is too."""

    def __init__(self, config: SpikesConfig, device: torch.device, max_norm: float = 0.0) -> None:
        self.sigma = config.sigma
        self._least = torch.tensor([-math.inf, max_norm], dtype=torch.float64, device=device)
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._window = torch.zeros(2, config.window, dtype=torch.float64, device=device)
        self._places = torch.arange(config.window, device=device)

    @torch.no_grad()
    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """1 where the step must be skipped, else 0: an fp32 scalar on the device, computed without reading anything on the host."""
        latest = torch.stack((loss, norm)).double()
        harmful = ~latest.isfinite().all()
        if self.sigma is not None:
            std, mean = torch.std_mean(self._window, dim=1)
            harmful |= (latest > torch.maximum(mean + self.sigma * std, self._least)).any() & (self._taken >= len(self._places))
        here = (self._places == self._taken % len(self._places)) & ~harmful
        self._window = torch.where(here, latest.unsqueeze(1), self._window)
        self._taken += ~harmful
        return harmful.float()

    def state(self) -> dict[str, Any]:
        return {"taken": int(self._taken), "window": self._window.tolist()}

    def load(self, state: dict[str, Any] | None) -> None:
        """Go on with the window of a checkpoint, or (None) with an empty one."""
        if state is None:
            self._taken.zero_()
            self._window.zero_()
        else:
            self._taken.fill_(state["taken"])
            self._window.copy_(torch.tensor(state["window"], dtype=torch.float64))


class Shift(NamedTuple):
    """From step `first` on (counted from 0), the rows are those of `steps` steps later."""

    first: int
    steps: int


def skipped_steps(shifts: Sequence[Shift], step: int) -> int:
    """How many steps' rows have been passed over when step `step` reads."""
    return sum(shift.steps for shift in shifts if step >= shift.first)


def go_round(shifts: Sequence[Shift], back: int, stop: int) -> list[Shift]:
    """The shifts of a run that goes back to step `back` and on with the rows that would have come at step `stop`."""
    kept = [shift for shift in shifts if shift.first <= back]
    return [*kept, Shift(back, stop + skipped_steps(shifts, stop) - back - skipped_steps(kept, back))]
