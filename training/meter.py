"""How fast a run is, how much of the machine it uses, and where its time goes: on one worker, for all."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from training.distributed import World
from training.hardware import gpu_of_device

Result = TypeVar("Result")


@dataclass
class Meter:
    """Sums since the last figures were taken, and over the run, both without the first step, which compiles.

    `flops` are those of a token, `peak` is the matmul rate timed at the start and `known_peak` that of the GPUs' maker (None
    for hardware that `training/hardware.py` does not know), both in FLOP/s over all `workers`.
    """

    flops: float
    peak: float
    device: torch.device
    workers: int = 1
    known_peak: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    all_tokens: int = 0
    all_seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, tokens: int, seconds: float, waited: float) -> None:
        """One step of all workers, which took `seconds` and of them `waited` for data."""
        self.tokens += tokens
        self.seconds += seconds
        self.waited += waited
        self.all_tokens += tokens
        self.all_seconds += seconds

    def take(self) -> dict[str, Any]:
        """The figures of a line of metrics, since the last one."""
        figures = {
            **self._speed(self.tokens, self.seconds),
            "data_wait": self.seconds and round(self.waited / self.seconds, 4),
            "memory_mb": self._memory_mb(),
        }
        self.tokens, self.seconds, self.waited = 0, 0.0, 0.0
        return figures

    def summary(self) -> dict[str, Any]:
        """The figures of the whole run; `seconds` by part of it."""
        parts = {name: round(value, 2) for name, value in self.parts.items()}
        return {
            **self._speed(self.all_tokens, self.all_seconds),
            "matmul_flops": self.peak,
            "peak_flops": self.known_peak,
            "memory_mb": self._memory_mb(),
            "seconds": {**parts, "train": round(self.all_seconds, 2)},
        }

    def timed(self, part: str, work: Callable[[], Result]) -> Result:
        """Do `work` and count its time as that of a part of the run."""
        began = time.perf_counter()
        result = work()
        self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - began
        return result

    def _speed(self, tokens: int, seconds: float) -> dict[str, float | None]:
        """Tokens a second, of all workers and of one, and the shares of the peaks that they need: `mfu` is that of the maker's."""
        if not seconds:
            return dict.fromkeys(("tokens_per_s", "tokens_per_s_per_worker", "flops_share", "mfu"))
        speed = tokens / seconds
        return {
            "tokens_per_s": round(speed, 1),
            "tokens_per_s_per_worker": round(speed / self.workers, 1),
            "flops_share": round(speed * self.flops / self.peak, 4),
            "mfu": self.known_peak and round(speed * self.flops / self.known_peak, 4),
        }

    def _memory_mb(self) -> int:
        """Peak memory of this worker: of the device if it has its own, else resident."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) >> 20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def known_peak(world: World) -> float | None:
    """Dense bf16 FLOP/s of all workers' GPUs together as their makers state it, None where one of them is not known."""
    gpu = gpu_of_device(torch.cuda.get_device_name(world.device)) if world.device.type == "cuda" else None
    peak = world.total(gpu.flops if gpu and world.precision == "bf16" else math.nan)[0]
    return peak if math.isfinite(peak) else None
