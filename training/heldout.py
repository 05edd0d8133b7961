"""Readings of text that is never trained on."""

from __future__ import annotations

import math

import numpy as np
import torch

from training.data import HeldOut, Rows
from training.distributed import World
from training.model import Llama
from training.objectives import next_token, on_device
from training.order import EMPTY_ROW


def read_heldout(model: Llama, streams: dict[str, HeldOut], world: World, micro_rows: int) -> dict[str, dict[str, float | None]]:
    """By stream: bits a byte where the bytes are known, and nats a token."""
    readings: dict[str, dict[str, float | None]] = {}
    for stream, part in streams.items():
        nats, tokens = evaluate(model, part.rows, world, micro_rows)
        bits = nats / math.log(2) / part.bytes if part.bytes else None
        readings[stream] = {"bits_per_byte": bits, "nats_per_token": nats / tokens, "tokens": tokens, "bytes": part.bytes}
    return readings


@torch.no_grad()
def evaluate(model: Llama, rows: Rows, world: World, micro_rows: int) -> tuple[float, int]:
    """Summed negative log-likelihood in nats over all targets of all rows, and their number."""
    model.eval()
    sums, together = torch.zeros(2, dtype=torch.float64, device=world.device), micro_rows * world.size
    for start in range(0, len(rows), together):
        numbers = np.arange(start, start + together, dtype=np.int64)
        numbers[numbers >= len(rows)] = EMPTY_ROW
        batch = on_device(rows.read(numbers[world.rank * micro_rows : (world.rank + 1) * micro_rows]), world.device)
        nats, targets = next_token(model, batch._replace(weights=None))
        sums += torch.stack((nats.double(), targets.double()))
    nats, targets = world.total(*sums.tolist())
    return nats, int(targets)
