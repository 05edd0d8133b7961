"""What vLLM runs at the start of each of its processes (entry point group `vllm.general_plugins`)."""

from __future__ import annotations


def register() -> None:
    """Ask the kernel for AMX tiles on CPUs that have them.

    vLLM's CPU attention uses AMX tiles without asking; before any large matmul of PyTorch's has asked for the
    permission, a tiny model or a short prompt ends the process with an illegal instruction.
    """
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
