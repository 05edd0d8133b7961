"""transformers' Llama on the tokens and first weights that ours has: under Hugging Face's Trainer, or in a plain torch loop.

bf16 autocast, fused AdamW, no checkpoint, no evaluation, nothing logged. The first step is not timed. Under torchrun the plain loop
has DistributedDataParallel, and each worker its share of a batch's rows.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from driver import cpu_seconds, report
from transformers import LlamaForCausalLM


def main(way: str, folder: str, threads: str, compiled: str) -> None:
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    tokens, targets = (torch.from_numpy(np.load(Path(folder) / f"{name}.npy")) for name in ("tokens", "targets"))
    model = LlamaForCausalLM.from_pretrained(Path(folder) / "initial", dtype=torch.float32)
    seconds, loss = (with_trainer if way == "trainer" else in_a_loop)(model, tokens, targets, compiled == "True")
    if int(os.environ.get("RANK", "0")):
        return
    counts = {"steps": len(tokens), "tokens": int((targets != -100).sum()), "timed_tokens": tokens[1:].numel()}
    report({"seconds": seconds, "cpu_seconds": cpu_seconds(), "passes": 1}, counts, loss=loss)


def in_a_loop(model: Any, tokens: torch.Tensor, targets: torch.Tensor, compiled: bool) -> tuple[float, float]:
    """The shortest loop there is."""
    forward = torch.compile(model, dynamic=False) if compiled else model
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        forward = torch.nn.parallel.DistributedDataParallel(forward)
        tokens, targets = (rows[:, dist.get_rank() :: dist.get_world_size()].contiguous() for rows in (tokens, targets))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    begun = loss = 0.0
    for step in range(len(tokens)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = forward(input_ids=tokens[step], labels=targets[step], shift_labels=targets[step], use_cache=False)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss = float(out.loss)
        if step == 0:
            begun = time.perf_counter()
    seconds = time.perf_counter() - begun
    if dist.is_initialized():
        mean = torch.tensor(loss)
        dist.all_reduce(mean)
        loss = float(mean) / dist.get_world_size()
        del forward, out  # before the group, or their end waits for it
        dist.barrier()
        dist.destroy_process_group()
    return seconds, loss


class _Rows(torch.utils.data.Dataset):
    """Tokens and targets [rows, seq_len] as Trainer wants them."""

    def __init__(self, tokens: torch.Tensor, targets: torch.Tensor) -> None:
        self.tokens, self.targets = tokens, targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[row], "labels": self.targets[row], "shift_labels": self.targets[row]}


def with_trainer(model: Any, tokens: torch.Tensor, targets: torch.Tensor, compiled: bool) -> tuple[float, float]:
    """Trainer as its documentation shows it."""
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        begun = 0.0

        def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_more: Any) -> None:
            if state.global_step == 1:
                self.begun = time.perf_counter()

    rows = _Rows(tokens.flatten(0, 1), targets.flatten(0, 1))

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out,
            per_device_train_batch_size=tokens.shape[1],
            max_steps=len(tokens),
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            weight_decay=0.1,
            optim="adamw_torch_fused",
            use_cpu=True,
            bf16=True,
            torch_compile=compiled,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = InOrder(model=model, args=arguments, train_dataset=rows, callbacks=[clock])
        trainer.train()
        seconds = time.perf_counter() - clock.begun
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = float(model(input_ids=tokens[-1], labels=targets[-1], shift_labels=targets[-1], use_cache=False).loss)
    return seconds, loss


if __name__ == "__main__":
    main(*sys.argv[1:])
