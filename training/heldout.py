"""Readings of rows that are never trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from training.data import HeldOut, Rows
from training.distributed import World
from training.model import Llama
from training.objectives import DeviceBatch, Objective, next_token, on_device
from training.order import EMPTY_ROW


def read_heldout(model: Llama, streams: dict[str, HeldOut], world: World, micro_rows: int) -> dict[str, dict[str, float | None]]:
    """By stream: bits a byte where the bytes are known, the objective in the stream's unit, and what that counted."""
    readings: dict[str, dict[str, float | None]] = {}
    for stream, part in streams.items():
        total, counted = evaluate(model, part.rows, world, micro_rows, part.objective or next_token)
        bits = total / math.log(2) / part.bytes if part.bytes else None
        readings[stream] = {"bits_per_byte": bits, part.unit: total / counted, "tokens": counted, "bytes": part.bytes}
    return readings


def shown(readings: dict[str, dict[str, float | None]], streams: dict[str, HeldOut]) -> dict[str, float | None]:
    """One figure for each stream: bits a byte where there are bytes."""
    return {stream: readings[stream]["bits_per_byte" if part.bytes else part.unit] for stream, part in streams.items()}


@torch.no_grad()
def evaluate(model: Llama, rows: Rows, world: World, micro_rows: int, objective: Objective = next_token) -> tuple[float, int]:
    """An objective summed over all rows, without weights of targets, and its divisor."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=world.device)
    for batch in whole_pass(rows, world, micro_rows):
        total, counted = objective(model, batch._replace(weights=None))
        sums += torch.stack((total.double(), counted.double()))
    total, counted = world.total(*sums.tolist())
    return total, int(counted)


def whole_pass(rows: Rows, world: World, micro_rows: int) -> Iterator[DeviceBatch]:
    """This worker's micro-batches of all rows in their order, as many for each worker; worker r has the r-th of each round."""
    together = micro_rows * world.size
    for start in range(0, len(rows), together):
        numbers = np.arange(start, start + together, dtype=np.int64)
        numbers[numbers >= len(rows)] = EMPTY_ROW
        yield on_device(rows.read(numbers[world.rank * micro_rows : (world.rank + 1) * micro_rows]), world.device)
