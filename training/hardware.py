"""The GPUs that a plan or a log may name: dense bf16 peak, memory and board power, as their makers state them.

A GPU that is not here has no peak: the log then measures one by a timed matmul (`flops.matmul_peak`) and a plan refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.errors import RequestError


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. `device` matches the name that torch gives it.

    Memory is the maker's number in units of 10^9 bytes. Cards carry a few per cent more; that is left to the driver's
    context, to NCCL's buffers and to fragmentation.
    """

    name: str
    flops: float
    """Dense bf16 FLOP/s of the matrix units with fp32 sums; makers print twice as much, with sparsity."""
    memory: float
    watts: float
    """Maximum board power."""
    device: str
    source: str


_A100 = "NVIDIA A100 datasheet, r4"
_H100 = "NVIDIA H100 datasheet: 1,979 TFLOP/s (SXM) and 1,513 (PCIe) with sparsity"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40gb", 312e12, 40e9, 400, r"A100-SXM4-40GB", _A100),
        Gpu("a100", 312e12, 80e9, 400, r"A100-SXM4-80GB", _A100),
        Gpu("h100-pcie", 756.5e12, 80e9, 350, r"H100 PCIe", _H100),
        Gpu("h100", 989.5e12, 80e9, 700, r"H100 80GB HBM3", _H100),
        Gpu("h200", 989.5e12, 141e9, 700, r"\bH200$", "NVIDIA H200 datasheet: 1,979 TFLOP/s with sparsity"),
        Gpu("b200", 2_250e12, 180e9, 1_000, r"\bB200$", "NVIDIA Blackwell datasheet, HGX B200: 4.5 PFLOP/s with sparsity"),
        Gpu("l40s", 362e12, 48e9, 350, r"\bL40S$", "NVIDIA L40S datasheet"),
        Gpu("mi300x", 1_307.4e12, 192e9, 750, r"MI300X", "AMD Instinct MI300X datasheet"),
    )
}


def find_gpu(name: str) -> Gpu:
    """The GPU of that name; an unknown one is a `RequestError` with the known names."""
    gpu = GPUS.get(name.lower())
    if gpu is None:
        raise RequestError(f"no GPU {name!r} in the planner's table; it has {', '.join(GPUS)}")
    return gpu


def gpu_of_device(device_name: str) -> Gpu | None:
    """The GPU that torch calls `device_name`, None for any other hardware."""
    return next((gpu for gpu in GPUS.values() if re.search(gpu.device, device_name)), None)
