"""The processes of one training run, and the model sharded over them (FSDP2).

Everything goes through torch.distributed, which Ray Train (or torchrun) has set up; a process on its own becomes a world
of one, so that there is one code path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from training.config import RESHARD_BYTES, LoraConfig, ModelConfig
from training.fp8 import use_fp8
from training.lora import add_adapters, init_adapters
from training.memory import keep_freed_memory
from training.model import Llama, Recompute, checkpoint_activations, compile_model, init_weights

Precision = Literal["bf16", "fp32"]

PATIENT_TIMEOUT_S = 1800.0
"""How long a collective call may wait while workers start, compile, write a checkpoint or export. During the steps it is
`collective_timeout_s`, which is short, so that a worker that hangs is noticed (as torchtitan does)."""


@dataclass(frozen=True)
class World:
    """This process's place among all, its device, and the number format of its matrix products.

    `group` is the process group that its collective calls use; None is the default one, which FSDP uses too.
    """

    rank: int
    size: int
    device: torch.device
    precision: Precision
    group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """Sums over all workers, in float64 and in the same order on each."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, group=self.group)
        return tensor.tolist()

    def from_main(self, value: Any) -> Any:
        """What rank 0 passed, on every worker."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """What each worker passed, by rank."""
        boxes: list[Any] = [None] * self.size
        dist.all_gather_object(boxes, value, group=self.group)
        return boxes

    def wait(self) -> None:
        self.total(0.0)

    def beside(self) -> World:
        """The same workers on CPU over a gloo group of their own, for another thread: two threads must not share a group,
        whose calls have to come in the same order on all workers."""
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=PATIENT_TIMEOUT_S))
        return replace(self, device=torch.device("cpu"), group=group)

    def set_timeout(self, seconds: float) -> None:
        """How long a collective call may wait for the other workers from now on, once all of them have come here.

        Gloo then raises an error; NCCL's watchdog ends the process, since its calls do not return.
        """
        self.wait()
        _set_pg_timeout(timedelta(seconds=seconds), self.group)


@contextlib.contextmanager
def open_world(precision: Literal["auto", "bf16", "fp32"], threads: int | None = None) -> Iterator[World]:
    """Join the process group that is there, or make one of this process alone for the time inside."""
    if threads:
        torch.set_num_threads(threads)
    alone = not dist.is_initialized()
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        keep_freed_memory()
    if alone:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device, compute_precision(precision, device))
    finally:
        if alone:
            dist.destroy_process_group()


def compute_precision(asked: Literal["auto", "bf16", "fp32"], device: torch.device) -> Precision:
    """The number format of matrix products: bf16 where the device has it, unless another is asked for."""
    return ("bf16" if has_native_bf16(device) else "fp32") if asked == "auto" else asked


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 products run in hardware: CUDA from compute capability 8.0, x86 with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def build_model(
    config: ModelConfig,
    vocab_size: int,
    seed: int,
    world: World,
    compile_blocks: bool,
    *,
    recompute: Recompute = "none",
    fp8: bool = False,
    lora: LoraConfig | None = None,
) -> Llama:
    """A sharded model with fresh weights, equal for a seed on any number of workers.

    Order of operations as in torchtitan: meta device, adapters, fp8, activation checkpointing, compile by block, `fully_shard`,
    `to_empty`, weights.
    """
    with torch.device("meta"):
        model = Llama(config, vocab_size)
    if lora is not None:
        add_adapters(model, lora)
    if fp8:
        use_fp8(model, world.device)
    checkpoint_activations(model, recompute)
    if compile_blocks:
        compile_model(model)
    dtype = torch.bfloat16 if world.precision == "bf16" else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(world.device.type, (world.size,))
    reshard = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize > RESHARD_BYTES
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.to_empty(device=world.device)
    init_weights(model, seed)
    init_adapters(model, seed)
    return model


def compiler_fault(device: torch.device) -> str | None:
    """Why torch.compile cannot be used on this machine (no C++ compiler, no Python headers, no Triton), or None."""
    try:
        torch.compile(_probe, dynamic=False)(torch.ones(64, device=device))
    except (RuntimeError, OSError) as error:
        return str(error).strip().splitlines()[0]
    return None


def _probe(values: Tensor) -> Tensor:
    return (values * 2 + 1).sum()


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """All weights on the CPU of rank 0 (empty elsewhere); a collective call."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
