"""The table of GPUs: names that torch gives, and one line for a name it does not know."""

from __future__ import annotations

import pytest

from cluster.errors import RequestError
from training.hardware import GPUS, find_gpu, gpu_of_device


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L40S", "l40s"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GB200", None),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_a_device_is_the_gpu_it_is_or_none(device: str, name: str | None) -> None:
    gpu = gpu_of_device(device)
    assert (gpu and gpu.name) == name


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert find_gpu("H100") is GPUS["h100"]
    with pytest.raises(RequestError) as caught:
        find_gpu("v9000")
    assert all(name in str(caught.value) for name in GPUS)
    assert "\n" not in str(caught.value)
