"""The allocator keeps what is freed (in a process of its own, since the setting stays)."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource, sys
from pathlib import Path
import torch
from training.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if sys.argv[1] == "keep":
    assert keep_freed_memory()
block = torch.ones(64 << 20, dtype=torch.uint8)
before = resident()
del block
print(before - resident())
"""


def freed(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_tensors_stay_with_the_process() -> None:
    assert freed("default") > 60 << 20
    assert freed("keep") < 1 << 20
