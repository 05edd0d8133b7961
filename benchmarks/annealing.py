"""Annealing on good and instruction-like text against annealing on the pretraining mix: `python -m benchmarks.annealing`.

The experiment that CroissantLLM's authors retell (after Hu et al. 2024, MiniCPM, arXiv 2404.06395, section 5.3), made small.
A cools down on the mix of pretraining, B on one with more of the best sources and with the chat examples; both come from
the same checkpoint, see the same number of tokens and are fine-tuned alike. For each seed the factory bakes one pretraining,
two annealings and two fine-tunings; what is baked already is kept, so more seeds cost only themselves.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from benchmarks.harness import RESULTS, cost_row, row, say, write_results
from cluster.artifacts import Artifact
from cluster.errors import FournilError
from cluster.storage import Folder
from evaluation.config import EvalConfig
from evaluation.engines import Model, load_tokenizer, model_context
from evaluation.harness import PREPARED, PrepareStream
from evaluation.tasks import minimal_pairs
from fournil.bake import bake
from fournil.recipe import load_recipe
from training.loop import EXPORT, SUMMARY

NAME = "annealing"
SMALL = (
    "model={hidden_size: 96, intermediate_size: 256, num_hidden_layers: 3, num_attention_heads: 3, num_key_value_heads: 3, "
    "max_position_embeddings: 256, initializer_range: 0.06}",
    "pretrain.tokens=600000",
    "pretrain.batch_tokens=1024",
    "pretrain.micro_batch_tokens=1024",
    "pretrain.optim={learning_rate: 0.004, schedule: wsd, warmup_ratio: 0.05, decay_ratio: 0}",
    "pretrain.eval_every=1000000",
    "sft.tokens=100000",
    "sft.batch_tokens=1024",
    "sft.micro_batch_tokens=1024",
    "sft.eval_every=1000000",
    *(f"resources.{stage}={{workers: 1, cpus_per_worker: 1}}" for stage in ("pretrain", "sft")),
)
"""1.1 M parameters, a twentieth of a pass through the demo's corpus at a constant rate, one core."""
BEST = "{ratios: {fr: 0.5, en: 0.5, code: 0.25, parallel: 0.5}, families: {knowledge: 2.0}}"
ARMS = {
    "A": "anneal={tokens: 150000}",
    "B": f"anneal={{tokens: 150000, instructions: 3.0, mix: {BEST}}}",
}
"""B: manuals, guides, FAQs and WordNet four times as often as the rest, and the chat examples, a third of what it sees."""
PAIRS, BATCH = 400, 32

Figures = dict[str, float]


class Transformers:
    """An `evaluation.engines.Engine`: the export in transformers, fp32 on CPU."""

    def __init__(self, folder: Folder) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32).eval()

    @torch.no_grad()
    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        found: list[list[float]] = []
        for start in range(0, len(sequences), BATCH):
            batch = sequences[start : start + BATCH]
            width = max(map(len, batch))
            ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in batch])
            logs = self.model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
            found += [logs[place, : len(sequence) - 1].tolist() for place, sequence in enumerate(batch)]
        return found

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        answers: list[list[int]] = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            answer = self.model.generate(ids, max_new_tokens=max_tokens, do_sample=False, eos_token_id=stop_token_ids or None)[
                0, len(prompt) :
            ]
            answers.append([token for token in answer.tolist() if token not in stop_token_ids])
        return answers

    def close(self) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.annealing", description="annealing with and without good and instruction-like text"
    )
    parser.add_argument("--recipe", default="recipes/demo.yaml")
    parser.add_argument("--storage", default="runs", help="where the recipe's data stages may be ready")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    try:
        measured = {seed: measure(arguments.recipe, Folder(str(Path(arguments.storage).resolve())), seed) for seed in arguments.seeds}
    except FournilError as error:
        say(f"failed: {error}")
        return error.exit_code
    rows = compare(measured)
    say(str(write_results(arguments.out, NAME, rows, {"torch": torch.__version__}, [f"B: {ARMS['B']}", *SMALL])))
    for line in table(rows):
        say(line)
    return 0


def measure(recipe: str, storage: Folder, seed: int) -> dict[str, tuple[Figures, dict[str, Any]]]:
    """For each arm its figures, and what it saw of each source."""
    found = {}
    for arm, anneal in ARMS.items():
        seeds = [f"{section}.seed={seed}" for section in ("pretrain", "anneal", "sft")]
        run = bake(load_recipe(recipe, [*SMALL, anneal, *seeds]), storage, run_name=f"{NAME}-{arm.lower()}-{seed}", until="sft")
        made = run.artifacts()
        annealed, tuned = (made[stage].folder.read_json(SUMMARY) for stage in ("anneal", "sft"))
        figures = {f"bits per byte, {stream}": reading["bits_per_byte"] for stream, reading in annealed["heldout"].items()}
        figures["nats per chat token"] = tuned["heldout"]["chat"]["nats_per_token"]
        for stage, role in (("anneal", "base"), ("sft", "chat")):
            for lang, accuracy in pair_accuracy(made[stage], made["clean"]).items():
                figures[f"minimal pairs, {role}, {lang}"] = accuracy
        say(f"seed {seed}, {arm}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        found[arm] = figures, annealed["sources"]
    return found


def pair_accuracy(made: Artifact, clean: Artifact) -> dict[str, float]:
    """Share of minimal pairs won, by language."""
    export = made.folder / EXPORT
    items = _pairs(clean.folder)
    model = Model(made.stage, Transformers(export), load_tokenizer(export), model_context(export), model_context(export))
    return {result.subset: result.value for result in minimal_pairs.evaluate(model, items, lambda _: None)[0]}


@lru_cache(maxsize=1)
def _pairs(clean: Folder) -> pa.Table:
    config = EvalConfig(tasks=(minimal_pairs.TASK,), minimal_pairs=PAIRS)
    with tempfile.TemporaryDirectory() as scratch:
        out = Folder(scratch)
        for lang in minimal_pairs.LANGUAGES:
            PrepareStream(clean, out, config)({"name": lang})
        tables = [out.read_table(f"{PREPARED}/{minimal_pairs.TASK}-{lang}.parquet") for lang in minimal_pairs.LANGUAGES]
    return pa.concat_tables(tables)


def compare(measured: Mapping[int, Mapping[str, tuple[Figures, dict[str, Any]]]]) -> list[dict[str, Any]]:
    """A row a figure: means over the seeds, the difference B - A seed by seed, and its standard error."""
    rows = []
    first = next(iter(measured.values()))
    for name in first["A"][0]:
        values = {arm: [arms[arm][0][name] for arms in measured.values()] for arm in ARMS}
        less_is_better = not name.startswith("minimal")
        make: Callable[..., dict[str, Any]] = cost_row if less_is_better else row
        counts = {**values, "seeds": list(measured), "less_is_better": less_is_better, **difference(values["A"], values["B"])}
        rows.append(make(NAME, name, statistics.mean(values["B"]), ("A", statistics.mean(values["A"])), counts))
    rows[0]["counts"]["sources"] = {arm: first[arm][1] for arm in ARMS}
    return rows


def difference(before: Sequence[float], after: Sequence[float]) -> dict[str, float | None]:
    """Mean of the paired differences and their standard error (None for one pair)."""
    pairs = [late - early for early, late in zip(before, after, strict=True)]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None
    return {"difference": statistics.mean(pairs), "standard_error": error}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results as a Markdown table."""
    lines = ["| | A | B | B − A | standard error |", "|---|---|---|---|---|"]
    for entry in rows:
        counts = entry["counts"]
        error = "" if counts["standard_error"] is None else f"{counts['standard_error']:.4f}"
        lines.append(f"| {entry['unit']} | {entry['peer_value']:.4f} | {entry['ours']:.4f} | {counts['difference']:+.4f} | {error} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
