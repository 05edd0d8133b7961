"""The same three methods as the engines, on transformers: an independent implementation to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.engines import Model


class TransformersEngine:
    """Plain transformers, one sequence at a time, in float32."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.calls = 0

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        import torch

        self.calls += 1
        answers = []
        for prompt in prompts:
            tokens = torch.tensor([prompt])
            made = self.model.generate(tokens, max_new_tokens=max_tokens, do_sample=False, eos_token_id=stop_token_ids, pad_token_id=1)
            answer = made[0, len(prompt) :].tolist()
            answers.append(answer[:-1] if answer and answer[-1] in stop_token_ids else answer)
        return answers

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        import torch

        self.calls += 1
        values = []
        with torch.no_grad():
            for sequence in sequences:
                logits = self.model(torch.tensor([sequence])).logits[0, :-1].float()
                values.append(logits.log_softmax(-1).gather(1, torch.tensor(sequence[1:])[:, None])[:, 0].tolist())
        return values

    def loss(self, sequence: list[int]) -> float:
        """transformers' own mean loss over a sequence, in nats."""
        import torch

        tokens = torch.tensor([sequence])
        with torch.no_grad():
            return float(self.model(tokens, labels=tokens).loss)

    def close(self) -> None:
        self.calls = -1


def model_of(engine: Any, folder: Path, *, context: int = 256, window: int = 64, role: str = "base") -> Model:
    """A `Model` around an engine and the tokenizer of `folder`."""
    from cluster.storage import Folder
    from evaluation.engines import load_tokenizer

    return Model(role, engine, load_tokenizer(Folder(str(folder))), context, window)


def ignore(_: float) -> None:
    """Progress that nobody watches."""
