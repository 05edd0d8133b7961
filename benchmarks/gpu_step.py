"""Row `gpu_step_1b`: one optimizer step of the 1.3 B model on one GPU beside transformers' Llama, compiled and eager.

    python -m benchmarks.gpu_step [--preset croissant-1b] [--micro-batch 8] [--steps 20]

For a bare machine with one GPU and torch >= 2.11 (with transformers, numpy, pydantic, pyarrow, fsspec, xxhash; neither Ray nor
vLLM). Each contender is a process of its own: fp32 weights and moments, bf16 products, fused AdamW, gradients clipped, tokens
drawn at random. It prints a table and writes `benchmarks/results/gpu_step_1b.json`. Without a GPU it measures the same code on CPU
(give a small preset), which only shows that it works.

MFU is tokens/s x FLOPs of a token (PaLM appendix B) over a peak: of a bf16 matmul timed on the same card in the same process, and
where the card is known its maker's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

NAME = "gpu_step_1b"
OURS = "fournil"
PEERS = ("transformers, compiled", "transformers, eager")
WARM_UP = 5


def main() -> int:
    """Measure all contenders, print and write the table; exit code 1 when ours failed."""
    from benchmarks.harness import RESULTS, write_results

    arguments = _arguments()
    if arguments.contender:
        print(json.dumps(measure(arguments.contender, arguments)))
        return 0
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for contender in (OURS, *PEERS):
        done = subprocess.run([*sys.orig_argv, "--contender", contender], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[contender] = json.loads(done.stdout.strip().splitlines()[-1])
            print(_line(contender, found[contender]), flush=True)
        else:
            notes.append(f"{contender} failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
            print(notes[-1], flush=True)
    if OURS not in found:
        return 1
    ours = found[OURS]
    rows = [_row(ours, peer, found[peer]) for peer in PEERS if peer in found] or [_row(ours, None, None)]
    print(write_results(RESULTS, NAME, rows, {"torch": ours["torch"], "device": ours["device"]}, notes))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="croissant-1b")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--micro-batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--steps", type=int, default=20, help=f"timed steps, after {WARM_UP} others")
    parser.add_argument("--recompute", default="none", choices=("none", "selective", "full"), help="activation checkpointing of ours")
    parser.add_argument("--fp8", action="store_true", help="ours with torchao's fp8 products")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(contender: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each timed step, and memory, of one contender in this process."""
    import torch

    from training.config import PRESETS
    from training.flops import flops_per_token, matmul_peak, parameter_count
    from training.hardware import gpu_of_device

    config, vocab_size = PRESETS[arguments.preset]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, vocab_size, (arguments.micro_batch, arguments.seq_len + 1), generator=generator).to(device)
    peak = matmul_peak("bf16", device)
    step = (_ours if contender == OURS else _transformers)(contender, arguments, rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    seconds = []
    for _ in range(WARM_UP + arguments.steps):
        begun = time.perf_counter()
        loss = step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    known = gpu_of_device(torch.cuda.get_device_name()) if device == "cuda" else None
    speed = arguments.micro_batch * arguments.seq_len / statistics.median(seconds[WARM_UP:])
    needed = flops_per_token(config, vocab_size, arguments.seq_len)
    return {
        "tokens_per_s": speed,
        "seconds": seconds[WARM_UP:],
        "mfu_of_matmul": speed * needed / peak,
        "mfu_of_maker": speed * needed / known.flops if known else None,
        "matmul_flops": peak,
        "maker_flops": known.flops if known else None,
        "flops_per_token": needed,
        "parameters": parameter_count(config, vocab_size),
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "last_loss": float(loss),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def _ours(_contender: str, arguments: argparse.Namespace, tokens: Any, targets: Any) -> Callable[[], float]:
    """The training loop's own step, as it is: FSDP2 in a world of one, blocks compiled, loss without all logits."""
    import atexit
    from contextlib import ExitStack

    from training.config import PRESETS, OptimConfig, SpikesConfig
    from training.distributed import build_model, open_world
    from training.objectives import DeviceBatch, next_token
    from training.optim import build_optimizer
    from training.spikes import SpikeGuard
    from training.step import train_step

    config, vocab_size = PRESETS[arguments.preset]
    config = config.model_copy(update={"max_position_embeddings": max(config.max_position_embeddings, arguments.seq_len)})
    stack = ExitStack()
    atexit.register(stack.close)
    world = stack.enter_context(open_world("bf16"))
    model = build_model(config, vocab_size, 1, world, True, recompute=arguments.recompute, fp8=arguments.fp8)
    optimizer = build_optimizer(model, OptimConfig())
    guard = SpikeGuard(SpikesConfig(), world.device, max_norm=1.0)
    batch = DeviceBatch(tokens, targets, None, None, {})

    def step() -> float:
        return train_step(model, optimizer, guard, next_token, [batch], targets.numel(), rate=1e-4, max_norm=1.0).wait().loss

    return step


def _transformers(contender: str, arguments: argparse.Namespace, tokens: Any, targets: Any) -> Callable[[], float]:
    """LlamaForCausalLM under bf16 autocast with torch's attention, compiled whole or not."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from training.config import PRESETS
    from training.export import huggingface_config

    config, vocab_size = PRESETS[arguments.preset]
    config = config.model_copy(update={"max_position_embeddings": max(config.max_position_embeddings, arguments.seq_len)})
    torch.manual_seed(1)
    llama = LlamaConfig(**huggingface_config(config, vocab_size, "float32"))
    llama._attn_implementation = "sdpa"
    model = LlamaForCausalLM(llama).to(tokens.device)
    forward = torch.compile(model, dynamic=False) if contender.endswith("compiled") else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> float:
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            loss = forward(input_ids=tokens, labels=targets, shift_labels=targets, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def _row(ours: dict[str, Any], peer: str | None, other: dict[str, Any] | None) -> dict[str, Any]:
    counts = {"ours": ours, "peer": other, "formula": "MFU = tokens/s x FLOPs of a token (PaLM appendix B) / peak"}
    value = other["tokens_per_s"] if other else None
    return {
        "name": NAME,
        "unit": f"tokens/s, {ours['parameters']:,} parameters, {ours['device']}",
        "ours": ours["tokens_per_s"],
        "peer": peer,
        "peer_value": value,
        "ratio": ours["tokens_per_s"] / value if value else None,
        "counts": counts,
        "repeats": {"ours": len(ours["seconds"])},
        "spread": {"ours": _spread(ours["seconds"])},
    }


def _spread(seconds: list[float]) -> float:
    return (max(seconds) - min(seconds)) / statistics.median(seconds)


def _line(name: str, one: dict[str, Any]) -> str:
    makers = f", {one['mfu_of_maker']:.1%} of the maker's {one['maker_flops'] / 1e12:.0f} TFLOP/s" if one["mfu_of_maker"] else ""
    memory = f", {one['memory_gib']:.1f} GiB" if one["memory_gib"] else ""
    share = f"MFU {one['mfu_of_matmul']:.1%} of a matmul's {one['matmul_flops'] / 1e12:.1f} TFLOP/s"
    return f"{name}: {one['tokens_per_s']:,.0f} tokens/s, {share}{makers}{memory}, loss {one['last_loss']:.3f}"


if __name__ == "__main__":
    sys.exit(main())
