"""Recipe sections of the training side: tokenizer, model, pretraining and fine-tuning."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cluster.config import Section
from pipelines.config import MixPhase

YARN_BETA_FAST, YARN_BETA_SLOW = 32, 1
"""Turns over the unscaled positions from which YaRN leaves a rotary pair alone, and up to which it interpolates it in full."""

LOSS_CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Logits that the loss holds at once: 8 MiB in fp32, which stays in a CPU's cache, and 512 MiB, which keeps a GPU busy."""

RESHARD_BYTES = 1 << 30
"""A model whose weights are larger in compute precision frees each block after its forward pass and gathers it again in the
backward pass; a smaller one keeps them for both, which saves a gather."""

PRODUCTS_MAX_LENGTH = 1_024
"""Longest rows for which attention on CPU keeps all its weights: 4,096 tokens, 16 heads and 24 blocks of them are 3 GiB in bf16."""


VocabSize = Annotated[int, Field(ge=512, le=262_144)]


class TokenizerConfig(Section):
    """Byte-level BPE fitted on a sample with the given byte share by stream."""

    vocab_size: VocabSize = 8_192
    sample_mb: float = Field(default=20.0, gt=0, description="text to fit on; bounds the fit's memory: see `training/tokenizer.py`")
    shares: dict[str, float] = {"fr": 0.4, "en": 0.4, "code": 0.2}


class RopeScaling(Section):
    """Rotary positions for rows `factor` times as long as the base is made for: see `training/rope.py`."""

    method: Literal["linear", "ntk", "yarn"]
    factor: float = Field(gt=1, description="model.max_position_embeddings over the positions without scaling")


class ModelConfig(Section):
    """Llama-shaped decoder: RoPE, RMSNorm, SwiGLU, grouped-query attention. Sizes as in `LlamaConfig`.

    `preset` names a shape of `PRESETS`, whose sizes then replace the defaults. It is expanded when the section is read and
    never kept, so equal sizes are equal sections however they were written.
    """

    preset: str | None = Field(default=None, exclude=True, description="sizes to start from: demo, 3m ... 7b, croissant-1b")
    hidden_size: int = Field(default=256, ge=16)
    intermediate_size: int = Field(default=704, ge=16)
    num_hidden_layers: int = Field(default=6, ge=1)
    num_attention_heads: int = Field(default=8, ge=1)
    num_key_value_heads: int = Field(default=4, ge=1)
    max_position_embeddings: int = Field(default=512, ge=16)
    rope_theta: float = Field(default=10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def unscaled_positions(self) -> int:
        """Positions that rotary embeddings cover without scaling."""
        return round(self.max_position_embeddings / (self.rope_scaling.factor if self.rope_scaling else 1))

    @property
    def rotary_base(self) -> float:
        """Base of the rotary frequencies: `rope_theta`, which NTK scaling raises so that the slowest pair turns `factor`
        times more slowly and the fastest as before (bloc97 2023; Peng et al. 2023, arXiv 2309.00071, section 3.1)."""
        if self.rope_scaling is None or self.rope_scaling.method != "ntk":
            return self.rope_theta
        return self.rope_theta * self.rope_scaling.factor ** (self.head_dim / (self.head_dim - 2))

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("preset") is None:
            return data
        name = data["preset"]
        if name not in PRESETS:
            near = difflib.get_close_matches(str(name), PRESETS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PRESETS)}"
            raise ValueError(f"unknown preset {name!r}; {hint}")
        sizes = PRESETS[name][0].model_dump()
        return {**sizes, **{key: value for key, value in data.items() if key != "preset"}}

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError("hidden_size / num_attention_heads must be even (rotary positions turn pairs)")
        if self.rope_scaling and self.unscaled_positions * self.rope_scaling.factor != self.max_position_embeddings:
            raise ValueError("max_position_embeddings / rope_scaling.factor must be a whole number of positions")
        if self.rope_scaling and self.rope_scaling.method == "ntk" and self.head_dim == 2:
            raise ValueError("rope_scaling.method ntk needs heads wider than 2")
        return self


class OptimConfig(Section):
    """AdamW, or Muon and AdamW, with warm-up and a cosine or WSD (warm-up, stable, decay) schedule."""

    optimizer: Literal["adamw", "muon"] = Field(default="adamw", description="muon: for the blocks' matrices; AdamW has the rest")
    learning_rate: float = Field(default=1e-3, gt=0)
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    decay_ratio: float = Field(default=0.2, ge=0, le=1, description="share of the steps that WSD spends cooling down")
    decay_shape: Literal["linear", "sqrt"] = Field(default="linear", description="how WSD cools down; sqrt: 1 - sqrt of the share done")
    weight_decay: float = Field(default=0.1, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's")
    grad_clip: float = Field(default=1.0, gt=0)


class SpikesConfig(Section):
    """Which steps are skipped, and when the run goes back past their rows: see `training/spikes.py`."""

    sigma: float | None = Field(default=6.0, gt=0, description="standard deviations above the mean; None: only what is not finite")
    window: int = Field(default=128, ge=2, description="steps")
    max_skipped: int = Field(default=10, ge=1, description="skipped steps in a row at which the run goes back to its last checkpoint")
    max_rewinds: int = Field(default=2, ge=0, description="the next one fails the run")


class GoldfishConfig(Section):
    """Targets that are never learnt: see `training/goldfish.py`."""

    k: int = Field(default=4, ge=2, description="one target in k is dropped")
    context: int = Field(default=13, ge=1, description="tokens before a target that decide it")


class LoopConfig(Section):
    """What pretraining and fine-tuning share. Batch sizes are in tokens."""

    seq_len: int = Field(default=256, ge=8)
    batch_tokens: int = Field(default=8_192, ge=8, description="tokens of one optimizer step, over all workers")
    micro_batch_tokens: int = Field(default=4_096, ge=8, description="tokens of one forward pass on one worker")
    tokens: int | None = Field(default=None, ge=1, description="stop after this many tokens; None sees the whole mix once")
    optim: OptimConfig = OptimConfig()
    spikes: SpikesConfig = SpikesConfig()
    goldfish: GoldfishConfig | None = None
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    fp8: bool = Field(default=False, description="the blocks' matrix products in fp8 (CUDA from 8.9, the extra fournil[fp8])")
    compile: bool = True
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        default="none", description="what the backward pass computes again: nothing, all but products and attention, or whole blocks"
    )
    mask_documents: bool = Field(
        default=False, description="attention stops at the start of a document in packed rows (chat examples are always kept apart)"
    )
    checkpoint_every: int = Field(default=100, ge=1, description="steps")
    keep_checkpoints: int = Field(default=2, ge=1, description="the newest ones that stay")
    keep_every: int | None = Field(default=None, ge=1, description="steps; checkpoints at multiples of it are never deleted")
    async_checkpoints: bool = Field(default=True, description="go on training while a checkpoint is written")
    collective_timeout_s: float = Field(
        default=300.0, gt=0, description="seconds after which a worker that does not answer the others between two steps counts as hung"
    )
    average_last: int = Field(default=0, ge=0, description="last checkpoints whose mean is exported beside the model; 0: none")
    eval_every: int = Field(default=200, ge=1, description="steps")
    eval_tokens: int = Field(default=32_768, ge=1, description="held-out tokens by stream for the readings during the run")
    seed: int = 1

    @model_validator(mode="after")
    def _whole_rows(self) -> LoopConfig:
        if self.batch_tokens % self.seq_len or self.micro_batch_tokens % self.seq_len:
            raise ValueError("batch_tokens and micro_batch_tokens must be multiples of seq_len")
        if self.keep_every and self.keep_every % self.checkpoint_every:
            raise ValueError("keep_every must be a multiple of checkpoint_every, else no checkpoint falls on it")
        if self.average_last > self.keep_checkpoints:
            raise ValueError(f"average_last {self.average_last} needs keep_checkpoints {self.average_last} or more")
        if self.fp8 and self.precision == "fp32":
            raise ValueError("fp8 leaves the rest in bf16: set precision to auto or bf16")
        return self


class DistilConfig(Section):
    """Learn from a larger model's distribution beside the text itself (Hinton et al. 2015)."""

    teacher: str = Field(description="folder or URL of a Hugging Face export with the run's own tokenizer")
    alpha: float = Field(default=0.5, gt=0, le=1, description="weight of the teacher's term; the text's own has 1 - alpha")
    temperature: float = Field(default=1.0, gt=0)


class PretrainConfig(LoopConfig):
    """One pass of the loop over packed tokens."""

    distil: DistilConfig | None = None


class LoraConfig(Section):
    """Train low-rank updates of some layers instead of the weights (Hu et al. 2021)."""

    rank: int = Field(default=16, ge=1, description="vLLM loads any rank up to 512")
    alpha: float = Field(default=32.0, gt=0, description="the update counts alpha / rank times")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )


class FineTuneConfig(LoopConfig):
    """What starts from a trained model and sees its data some times over."""

    epochs: float = Field(default=1.0, gt=0)
    lora: LoraConfig | None = None
    spikes: SpikesConfig = Field(default=SpikesConfig(sigma=None), description="a hard example is not a fault: only what is not finite")

    @model_validator(mode="after")
    def _adapters_in_bf16(self) -> FineTuneConfig:
        if self.lora and self.fp8:
            raise ValueError("lora trains beside weights in bf16 or fp32: set fp8 to false")
        if self.lora and self.lora.dropout and self.activation_checkpointing != "none":
            raise ValueError("lora.dropout would drop other values in the recomputed pass: set it or activation_checkpointing to none")
        return self


class SftConfig(FineTuneConfig):
    """Supervised fine-tuning on chat examples: packed rows, loss on assistant tokens only."""

    source_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="what the loss of a source's examples counts; 1 for a source not named"
    )
    optim: OptimConfig = OptimConfig(learning_rate=5e-4)


class AnswersConfig(Section):
    """Answers of the fine-tuned model, which a preference pair sets against the gold answer."""

    max_pairs: int = Field(default=500, ge=0)
    max_new_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0, description="0: the likeliest token each time")
    batch: int = Field(default=16, ge=1, description="prompts answered together")


class PreferencesConfig(Section):
    """Pairs of a better and a worse answer, made from the chat examples and the fine-tuned model."""

    max_pairs: dict[Literal["other_sentence", "changed_number", "left_out"], int] = Field(
        default={}, description="most pairs of a kind; 500 of a kind not named"
    )
    answers: AnswersConfig = AnswersConfig()
    seed: int = 1


class DpoConfig(FineTuneConfig):
    """Preference optimisation on pairs: DPO (Rafailov et al. 2023) or IPO (Azar et al. 2023)."""

    loss: Literal["dpo", "ipo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="how dear it is to leave the starting model (IPO's tau)")
    optim: OptimConfig = OptimConfig(learning_rate=5e-5, warmup_ratio=0.1)


class WatchConfig(Section):
    """Where training is shown beside metrics.jsonl and TensorBoard. Never changes the result: no part of any artifact's hash."""

    tracker: Literal["wandb", "mlflow"] | None = Field(default=None, description="needs the extra of that name: fournil[wandb]")
    project: str = Field(default="fournil", min_length=1)
    online: bool = Field(default=False, description="send to the tracker's server; files beside the run's logs when false")


class AnnealConfig(Section):
    """The end of pretraining: the learning rate falls from where it was, on a mix of its own. The rest is as `pretrain` says."""

    tokens: int = Field(ge=1)
    decay_shape: Literal["linear", "sqrt"] = "linear"
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1, description="last learning rate over the one that pretraining ended with")
    mix: MixPhase | None = Field(default=None, description="in place of mix.annealing, for the same tokens artifact")
    instructions: float = Field(default=0.0, ge=0, description="epochs of the chat examples, as text in the chat template")
    seed: int = 1


class AnnealJobConfig(Section):
    """What the anneal stage declares."""

    pretrain: PretrainConfig = PretrainConfig()
    anneal: AnnealConfig | None = None


class ScaleConfig(Section):
    """The small runs of `fournil scale`: each mix with each width, number of tokens and seed. No stage declares it."""

    widths: tuple[Annotated[int, Field(ge=16)], ...] = Field(default=(64, 96, 128), min_length=1, description="hidden sizes")
    tokens: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(250_000, 500_000, 1_000_000), min_length=1)
    mixes: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(
        default={}, description="name -> stream -> share of the tokens, scaled to sum 1; the recipe's own mix when empty"
    )
    objective: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="weight of each held-out stream in the mean to minimise; all alike when empty"
    )
    seeds: tuple[int, ...] = Field(default=(1,), min_length=1)
    eval_tokens: int = Field(default=65_536, ge=1, description="held-out tokens by stream")


class PretrainJobConfig(Section):
    """What the pretrain stage declares: the model's shape and its training, and the teacher's hash if it has one."""

    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    teacher: str | None = None


def _shape(width: int, ffn: int, layers: int, heads: int, kv_heads: int, positions: int, tied: bool = True) -> ModelConfig:
    return ModelConfig(
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
    )


PRESETS: dict[str, tuple[ModelConfig, int]] = {
    "demo": (_shape(256, 704, 6, 4, 2, 512), 8_192),  # 6,524,160 parameters
    "3m": (_shape(192, 512, 5, 3, 3, 512), 4_096),  # 3,000,384
    "10m": (_shape(256, 704, 10, 4, 4, 1_024), 8_192),  # 10,130,688
    "30m": (_shape(384, 1_024, 13, 6, 6, 1_024), 16_384),  # 29,304,960
    "100m": (_shape(640, 1_728, 16, 10, 10, 2_048), 32_000),  # 99,799,680
    "300m": (_shape(1_024, 2_816, 24, 16, 4, 2_048), 32_000),  # 303,350,784
    "croissant-1b": (_shape(2_048, 5_504, 24, 16, 16, 2_048, tied=False), 32_000),  # 1,345,423,360
    "3b": (_shape(3_072, 8_192, 28, 24, 8, 4_096), 65_536),  # 3,020,073,984
    "7b": (_shape(4_096, 11_008, 36, 32, 8, 4_096, tied=False), 65_536),  # 6,916,706,304
}
"""Model shapes with their vocabulary sizes and parameters (tied embeddings once): heads of 64 or 128, feed-forward about 8/3 of
the width, fewer key/value heads from 300m on. `croissant-1b` is CroissantLLM's (Faysse et al. 2024, arXiv 2402.00786)."""
