"""Recipe sections of the training side: tokenizer, model, pretraining and fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cluster.config import Section

LOSS_CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Logits that the loss holds at once: 8 MiB in fp32, which stays in a CPU's cache, and 512 MiB, which keeps a GPU busy."""

PRODUCTS_MAX_LENGTH = 1_024
"""Longest rows for which attention on CPU keeps all its weights: 4,096 tokens, 16 heads and 24 blocks of them are 3 GiB in bf16."""


class TokenizerConfig(Section):
    """Byte-level BPE fitted on a sample with the given byte share by stream."""

    vocab_size: int = Field(default=8_192, ge=512, le=262_144)
    sample_mb: float = Field(default=20.0, gt=0)
    shares: dict[str, float] = {"fr": 0.4, "en": 0.4, "code": 0.2}


class ModelConfig(Section):
    """Llama-shaped decoder: RoPE, RMSNorm, SwiGLU, grouped-query attention. Sizes as in `LlamaConfig`."""

    hidden_size: int = Field(default=256, ge=16)
    intermediate_size: int = Field(default=704, ge=16)
    num_hidden_layers: int = Field(default=6, ge=1)
    num_attention_heads: int = Field(default=8, ge=1)
    num_key_value_heads: int = Field(default=4, ge=1)
    max_position_embeddings: int = Field(default=512, ge=16)
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError("hidden_size / num_attention_heads must be even (rotary positions turn pairs)")
        return self


class OptimConfig(Section):
    """AdamW with warm-up and a cosine or WSD (warm-up, stable, decay) schedule."""

    learning_rate: float = Field(default=1e-3, gt=0)
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    decay_ratio: float = Field(default=0.2, ge=0, le=1, description="share of the steps that WSD spends cooling down")
    weight_decay: float = Field(default=0.1, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    grad_clip: float = Field(default=1.0, gt=0)


class LoopConfig(Section):
    """What pretraining and fine-tuning share. Batch sizes are in tokens."""

    seq_len: int = Field(default=256, ge=8)
    batch_tokens: int = Field(default=8_192, ge=8, description="tokens of one optimizer step, over all workers")
    micro_batch_tokens: int = Field(default=4_096, ge=8, description="tokens of one forward pass on one worker")
    tokens: int | None = Field(default=None, ge=1, description="stop after this many tokens; None sees the whole mix once")
    optim: OptimConfig = OptimConfig()
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = True
    checkpoint_every: int = Field(default=100, ge=1, description="steps")
    keep_checkpoints: int = Field(default=2, ge=1)
    eval_every: int = Field(default=200, ge=1, description="steps")
    eval_tokens: int = Field(default=32_768, ge=1, description="held-out tokens by stream for the readings during the run")
    seed: int = 1

    @model_validator(mode="after")
    def _whole_rows(self) -> LoopConfig:
        if self.batch_tokens % self.seq_len or self.micro_batch_tokens % self.seq_len:
            raise ValueError("batch_tokens and micro_batch_tokens must be multiples of seq_len")
        return self


class PretrainConfig(LoopConfig):
    """One pass of the loop over packed tokens."""


class SftConfig(LoopConfig):
    """Supervised fine-tuning on chat examples: packed rows, loss on assistant tokens only."""

    epochs: float = Field(default=1.0, gt=0)
    optim: OptimConfig = OptimConfig(learning_rate=5e-4)


class PretrainJobConfig(Section):
    """What the pretrain stage declares: the model's shape and its training."""

    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()


PRESETS: dict[str, tuple[ModelConfig, int]] = {
    "demo": (ModelConfig(num_attention_heads=4, num_key_value_heads=2), 8_192),
    "croissant-1b": (
        ModelConfig(
            hidden_size=2_048,
            intermediate_size=5_504,
            num_hidden_layers=24,
            num_attention_heads=16,
            num_key_value_heads=16,
            max_position_embeddings=2_048,
            tie_word_embeddings=False,
        ),
        32_000,
    ),
}
"""Model shapes with their vocabulary sizes: the demo's, and CroissantLLM's (1,345,423,360 parameters)."""
