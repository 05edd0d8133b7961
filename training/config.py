"""Recipe sections of the training side: tokenizer, model, pretraining and fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cluster.config import Section


class TokenizerConfig(Section):
    """Byte-level BPE fitted on a sample with the given byte share by stream."""

    vocab_size: int = Field(8_192, ge=512, le=262_144)
    sample_mb: float = Field(20.0, gt=0)
    shares: dict[str, float] = {"fr": 0.4, "en": 0.4, "code": 0.2}


class ModelConfig(Section):
    """Llama-shaped decoder: RoPE, RMSNorm, SwiGLU, grouped-query attention. Sizes as in `LlamaConfig`."""

    hidden_size: int = Field(256, ge=16)
    intermediate_size: int = Field(704, ge=16)
    num_hidden_layers: int = Field(6, ge=1)
    num_attention_heads: int = Field(8, ge=1)
    num_key_value_heads: int = Field(4, ge=1)
    max_position_embeddings: int = Field(512, ge=16)
    rope_theta: float = Field(10_000.0, gt=0)
    rms_norm_eps: float = Field(1e-5, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(0.02, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self


class OptimConfig(Section):
    """AdamW with warm-up and a cosine or WSD (warm-up, stable, decay) schedule."""

    learning_rate: float = Field(1e-3, gt=0)
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    decay_ratio: float = Field(0.2, ge=0, le=1, description="share of the steps that WSD spends cooling down")
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    grad_clip: float = Field(1.0, gt=0)


class PretrainConfig(Section):
    """One pass of the loop over packed tokens. Batch sizes are in tokens."""

    seq_len: int = Field(256, ge=8)
    batch_tokens: int = Field(8_192, ge=8, description="tokens of one optimizer step, over all workers")
    micro_batch_tokens: int = Field(4_096, ge=8, description="tokens of one forward pass on one worker")
    tokens: int | None = Field(None, ge=1, description="stop after this many tokens; None sees the whole mix once")
    optim: OptimConfig = OptimConfig()
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = True
    checkpoint_every: int = Field(100, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    eval_every: int = Field(200, ge=1, description="steps")
    eval_tokens: int = Field(32_768, ge=1, description="held-out tokens by language for the readings during the run")
    seed: int = 1

    @model_validator(mode="after")
    def _whole_rows(self) -> PretrainConfig:
        if self.batch_tokens % self.seq_len or self.micro_batch_tokens % self.seq_len:
            raise ValueError("batch_tokens and micro_batch_tokens must be multiples of seq_len")
        return self


class SftConfig(Section):
    """Supervised fine-tuning on chat examples: packed rows, loss on assistant tokens only."""

    seq_len: int = Field(256, ge=8)
    batch_tokens: int = Field(8_192, ge=8)
    micro_batch_tokens: int = Field(4_096, ge=8)
    epochs: float = Field(1.0, gt=0)
    tokens: int | None = Field(None, ge=1)
    optim: OptimConfig = OptimConfig(learning_rate=5e-4)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = True
    checkpoint_every: int = Field(100, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    seed: int = 1

    @model_validator(mode="after")
    def _whole_rows(self) -> SftConfig:
        if self.batch_tokens % self.seq_len or self.micro_batch_tokens % self.seq_len:
            raise ValueError("batch_tokens and micro_batch_tokens must be multiples of seq_len")
        return self


class PretrainJobConfig(Section):
    """What the pretrain stage declares: the model's shape and its training."""

    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
