"""The small runs behind a scaling law: each an artifact of its own, trained in one Ray task.

    recipe's shape -> mixes x widths x tokens x seeds -> trials -> Ray tasks -> artifacts/trial/<hash>/ (summary.json, metrics.jsonl)

A trial's hash covers its shape, settings and mix, and the hashes of the tokens and the tokenizer: the same ladder again
runs only what is missing, and a trial that was cut short goes on from its checkpoint.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.artifacts import Artifact, artifact_folder, commit_artifact, find_artifact, now, stage_hash
from cluster.errors import FournilError, RequestError, WorkError
from cluster.stage import Resources
from cluster.storage import Folder
from training.config import ModelConfig, PretrainConfig, ScaleConfig
from training.flops import flops_per_token, parameter_count
from training.pretrain import TokensInput, check_context

if TYPE_CHECKING:
    from training.data import TrainingData
    from training.job import Job

STAGE, VERSION = "trial", "1"
OWN_MIX = "recipe"
RATE_POWER = -0.125
"""Learning rates go with the training FLOPs to this power (DeepSeek LLM 2024, arXiv 2401.02954, equation 1)."""
RETRIES = 3
NEVER = 1 << 40


@dataclass(frozen=True)
class Trial:
    """One small run. `shares` is the part of its tokens that each stream has, `ratios` by source what gives these."""

    mix: str
    shares: dict[str, float]
    ratios: dict[str, float]
    model: ModelConfig
    vocab_size: int
    settings: PretrainConfig
    inputs: dict[str, str]
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", stage_hash(STAGE, VERSION, self.config(), self.inputs))

    def config(self) -> dict[str, Any]:
        """All that the result depends on beside the inputs."""
        settings = self.settings.model_dump(mode="json")
        return {"model": self.model.model_dump(mode="json"), "settings": settings, "ratios": self.ratios}

    @property
    def parameters(self) -> int:
        return parameter_count(self.model, self.vocab_size)

    @property
    def tokens(self) -> int:
        assert self.settings.tokens is not None
        return self.settings.tokens

    def __str__(self) -> str:
        return f"{self.mix}, width {self.model.hidden_size}, {self.tokens:,} tokens, seed {self.settings.seed}"


def make_trials(scale: ScaleConfig, model: ModelConfig, base: PretrainConfig, tokens: Artifact, tokenizer: Artifact) -> list[Trial]:
    """All trials of a ladder; a `RequestError` for what could not be trained or would say nothing."""
    index = tokens.folder.read_json("index.json")
    heldout = sorted(stream for stream, entry in index["heldout"].items() if entry["tokens"])
    if (set(scale.objective) - set(heldout)) or (scale.objective and not sum(scale.objective.values())):
        raise RequestError(f"scale.objective must weigh held-out streams, which are {', '.join(heldout)}")
    if min(scale.tokens) < base.batch_tokens:
        raise RequestError(f"scale.tokens {min(scale.tokens)} is less than one step of pretrain.batch_tokens {base.batch_tokens}")
    check_context(model.max_position_embeddings, base)
    vocab_size = index["vocab_size"]
    seen = base.tokens or sum(source["tokens"] * source["ratio"] for source in index["sources"].values())
    reference = seen * flops_per_token(model, vocab_size, base.seq_len)
    trials = []
    for (name, shares), width, length, seed in itertools.product(_mixes(scale, index), scale.widths, scale.tokens, scale.seeds):
        shape = shape_of_width(model, width)
        rate = base.optim.learning_rate * (length * flops_per_token(shape, vocab_size, base.seq_len) / reference) ** RATE_POWER
        changes = {
            "tokens": length,
            "seed": seed,
            "optim": base.optim.model_copy(update={"learning_rate": float(f"{rate:.4g}")}),
            "eval_tokens": scale.eval_tokens,
            "eval_every": NEVER,
            "keep_checkpoints": 1,
            "distil": None,
        }
        inputs = {"tokens": tokens.hash, "tokenizer": tokenizer.hash}
        settings = base.model_copy(update=changes)
        trials.append(Trial(name, shares, ratios_for(index, shares), shape, vocab_size, settings, inputs))
    return list({trial.hash: trial for trial in trials}.values())


def shape_of_width(model: ModelConfig, width: int) -> ModelConfig:
    """The model's shape at another hidden size: as many heads, feed-forward and depth in proportion."""
    scale = width / model.hidden_size
    changes = {
        "hidden_size": width,
        "intermediate_size": max(16, 8 * round(model.intermediate_size * scale / 8)),
        "num_hidden_layers": max(1, round(model.num_hidden_layers * scale)),
    }
    try:
        return ModelConfig.model_validate({**model.model_dump(), **changes})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RequestError(f"scale.widths {width} does not suit the recipe's model: {reason}") from None


def own_shares(index: Mapping[str, Any]) -> dict[str, float]:
    """The share of the tokens that each stream has in the recipe's own mix."""
    amounts: dict[str, float] = {}
    for source in index["sources"].values():
        amounts[source["stream"]] = amounts.get(source["stream"], 0.0) + source["tokens"] * source["ratio"]
    return {stream: amount / sum(amounts.values()) for stream, amount in sorted(amounts.items())}


def ratios_for(index: Mapping[str, Any], shares: Mapping[str, float]) -> dict[str, float]:
    """Sampling ratios by source that give each stream its share; within a stream the sources keep their proportions."""
    own = own_shares(index)
    return {
        name: round(source["ratio"] * shares.get(source["stream"], 0.0) / own[source["stream"]], 9) if own[source["stream"]] else 0.0
        for name, source in sorted(index["sources"].items())
    }


def _mixes(scale: ScaleConfig, index: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    own = own_shares(index)
    if not scale.mixes:
        return [(OWN_MIX, own)]
    found = []
    for name, wanted in scale.mixes.items():
        there = sorted(stream for stream, share in own.items() if share > 0)
        if not sum(wanted.values()) or any(share and stream not in there for stream, share in wanted.items()):
            raise RequestError(f"scale.mixes.{name} must give shares to streams that have tokens, which are {', '.join(there)}")
        found.append((name, {stream: wanted.get(stream, 0.0) / sum(wanted.values()) for stream in own}))
    return found


def run_trials(
    trials: Sequence[Trial],
    storage: Folder,
    tokens: Folder,
    tokenizer: Folder,
    *,
    resources: Resources,
    at_once: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """What each trial measured, in order; those that no artifact has yet are trained now, at most `at_once` together.

    The longest go first. When one fails no more are begun; those under way end and are kept.
    """
    import ray
    from ray.exceptions import RayError

    todo = sorted((trial for trial in trials if not _artifact(storage, trial)), key=lambda trial: -trial.parameters * trial.tokens)
    say(f"{len(trials)} trials, {len(trials) - len(todo)} kept from before")
    work = ray.remote(_train).options(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, max_retries=RETRIES)
    running: dict[Any, tuple[Trial, str, float]] = {}
    failures: list[str] = []
    left = len(todo)
    while running or (todo and not failures):
        while todo and len(running) < at_once and not failures:
            trial = todo.pop(0)
            job = _job(trial, storage, tokens, tokenizer, resources)
            running[work.remote(job)] = (trial, now(), time.monotonic())
        (done,), _ = ray.wait(list(running), num_returns=1)
        trial, started, began = running.pop(done)
        try:
            summary = ray.get(done)
        except RayError as error:
            failures.append(f"{trial} failed ({_reason(error)})")
            continue
        _commit(trial, storage, summary, started, time.monotonic() - began)
        left -= 1
        say(f"{trial}: {_losses(summary)}; {left} to go")
    if failures:
        raise WorkError(f"trial {failures[0]}; the finished ones are kept and the same command goes on")
    return [_measured(trial, storage) for trial in trials]


@dataclass(frozen=True)
class TrialInput:
    """The tokens in the trial's mix; held-out text is cut to `settings.eval_tokens` a stream, the same for all trials."""

    input: TokensInput

    def __call__(self) -> TrainingData:
        data = self.input()
        return replace(data, heldout=data.quick)


def _job(trial: Trial, storage: Folder, tokens: Folder, tokenizer: Folder, resources: Resources) -> Job:
    from training.job import Job

    return Job(
        model=trial.model,
        vocab_size=trial.vocab_size,
        settings=trial.settings,
        data=TrialInput(TokensInput(tokens, trial.settings, ratios=trial.ratios)),
        tokenizer=tokenizer,
        out=artifact_folder(storage, STAGE, trial.hash),
        identity={"trial": trial.hash},
        attempt=uuid.uuid4().hex[:12],
        threads=max(1, int(resources.cpus_per_worker)),
    )


def _train(job: Job) -> dict[str, Any]:
    """What a Ray task runs: the loop, alone in its process group."""
    from training.loop import SUMMARY, train

    return job.out.read_json(SUMMARY) if job.out.exists(SUMMARY) else train(job)


def _commit(trial: Trial, storage: Folder, summary: dict[str, Any], started: str, seconds: float) -> None:
    """Keep the figures; weights of small models are of no use to anyone."""
    from training.checkpoint import CHECKPOINTS
    from training.loop import EXPORT

    for folder in (CHECKPOINTS, EXPORT):
        artifact_folder(storage, STAGE, trial.hash).delete(folder)
    versions = {"torch": version("torch")}
    commit_artifact(
        storage,
        STAGE,
        trial.hash,
        inputs=trial.inputs,
        config=trial.config(),
        versions=versions,
        started=started,
        seconds=seconds,
        metrics=summary,
    )


def _measured(trial: Trial, storage: Folder) -> dict[str, Any]:
    """A trial's row in the report: what it was, and its held-out loss by stream (bits a byte where bytes are known)."""
    artifact = _artifact(storage, trial)
    assert artifact is not None
    summary = artifact.metrics
    return {
        "mix": trial.mix,
        "shares": trial.shares,
        "width": trial.model.hidden_size,
        "parameters": trial.parameters,
        "tokens": trial.tokens,
        "seed": trial.settings.seed,
        "learning_rate": trial.settings.optim.learning_rate,
        "loss": _loss_by_stream(summary),
        "epochs": {name: seen["epochs"] for name, seen in summary.get("sources", {}).items()},
        "seconds": artifact.manifest["seconds"],
        "hash": trial.hash,
    }


def _artifact(storage: Folder, trial: Trial) -> Artifact | None:
    return find_artifact(storage, STAGE, trial.hash)


def _loss_by_stream(summary: dict[str, Any]) -> dict[str, float]:
    readings = summary["heldout"]
    return {stream: reading["bits_per_byte"] or reading["nats_per_token"] for stream, reading in sorted(readings.items())}


def _losses(summary: dict[str, Any]) -> str:
    return " ".join(f"{stream} {loss:.3f}" for stream, loss in _loss_by_stream(summary).items())


def _reason(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return str(cause) if isinstance(cause, FournilError) else f"{type(cause).__name__}: {cause}".splitlines()[0]
