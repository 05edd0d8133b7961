"""A Hugging Face folder from a state dict: transformers and vLLM load it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.storage import Folder
from training.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

EOS, PAD, IM_END = 0, 1, 3
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def export_model(
    state_dict: dict[str, Tensor],
    config: ModelConfig,
    vocab_size: int,
    tokenizer_folder: Folder,
    out: Folder,
    name: str = "export",
    chat: bool = False,
    dtype: str = "bfloat16",
) -> None:
    import torch
    from safetensors.torch import save

    target = out / name
    kind = getattr(torch, dtype)
    tensors = {key: state_dict[key].to(kind).contiguous() for key in sorted(state_dict)}
    target.write_bytes("model.safetensors", save(tensors, metadata={"format": "pt"}))
    target.write_json("config.json", hf_config(config, vocab_size, dtype))
    target.write_json("generation_config.json", {"bos_token_id": EOS, "eos_token_id": [IM_END, EOS] if chat else EOS, "pad_token_id": PAD})
    for file in TOKENIZER_FILES:
        if tokenizer_folder.exists(file):
            target.write_bytes(file, tokenizer_folder.read_bytes(file))


def hf_config(config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": vocab_size,
    }
