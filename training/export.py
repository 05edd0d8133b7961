"""A Hugging Face folder from a state dict: transformers and vLLM load it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import RequestError, WorkError
from cluster.storage import Folder
from training.config import YARN_BETA_FAST, YARN_BETA_SLOW, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

END_OF_TEXT, PAD, IM_END = 0, 1, 3
"""Ids that `training/tokenizer.py` gives its special tokens; a chat model also stops at the end of its turn."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def export_model(
    state_dict: dict[str, Tensor],
    config: ModelConfig,
    vocab_size: int,
    tokenizer_folder: Folder,
    out: Folder,
    name: str = "export",
    chat: bool = False,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
) -> None:
    """Write `out/name/`: config.json, generation_config.json, model.safetensors in `dtype`, and the tokenizer's files.

    `state_dict` holds the full CPU tensors of a `training.model.Llama`; the same weights give the same bytes. Weights
    that do not fit `config` and `vocab_size` are a `WorkError`.
    """
    import torch
    from safetensors.torch import save

    _check_shapes(state_dict, config, vocab_size)
    folder = out / name
    wanted = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    tensors = {key: state_dict[key].detach().to(wanted).contiguous() for key in sorted(state_dict)}
    folder.write_bytes("model.safetensors", save(tensors, metadata={"format": "pt"}))
    for file in TOKENIZER_FILES:
        folder.write_bytes(file, tokenizer_folder.read_bytes(file))
    folder.write_json("generation_config.json", generation_config(chat))
    folder.write_json("config.json", huggingface_config(config, vocab_size, dtype))


def huggingface_config(config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, Any]:
    """The fields of `transformers.LlamaConfig` for a model of this shape.

    With linear scaling `max_position_embeddings` counts the positions before it, since vLLM multiplies by the factor.
    """
    scaling = config.rope_scaling
    positions = config.unscaled_positions if scaling and scaling.method == "linear" else config.max_position_embeddings
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": END_OF_TEXT,
        "dtype": dtype,
        "eos_token_id": END_OF_TEXT,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": positions,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "pad_token_id": PAD,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": rope_parameters(config),
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": True,
        "vocab_size": vocab_size,
    }


def rope_parameters(config: ModelConfig) -> dict[str, Any]:
    """Rotary positions in the words of transformers 5 and vLLM, which both take YaRN's attention factor from `factor`."""
    scaling = config.rope_scaling
    if scaling is None or scaling.method == "ntk":
        return {"rope_theta": config.rotary_base, "rope_type": "default"}
    parameters = {"factor": scaling.factor, "rope_theta": config.rope_theta, "rope_type": scaling.method}
    if scaling.method == "linear":
        return parameters
    ramp = {"beta_fast": YARN_BETA_FAST, "beta_slow": YARN_BETA_SLOW}
    return {**parameters, **ramp, "original_max_position_embeddings": config.unscaled_positions}


def model_config(config: dict[str, Any]) -> tuple[ModelConfig, int]:
    """Shape and vocabulary size of a model by its `config.json`, the inverse of `huggingface_config`.

    NTK scaling comes back as the base it makes. A model that `training.model.Llama` does not compute is a `RequestError`.
    """
    rope = config.get("rope_parameters") or {}
    scaling = None
    if rope.get("rope_type", "default") != "default":
        scaling = {"method": rope["rope_type"], "factor": rope["factor"]}
    fields = ModelConfig.model_fields.keys() & config.keys()
    shape = {name: config[name] for name in fields} | {
        "max_position_embeddings": context_length(config),
        "rope_theta": rope.get("rope_theta", 10_000.0),
        "rope_scaling": scaling,
    }
    try:
        model = ModelConfig.model_validate(shape)
    except ValueError as error:
        raise RequestError(f"config.json: {str(error).splitlines()[-1].strip()}") from None
    theirs = huggingface_config(model, config["vocab_size"], config["dtype"])
    other = [name for name in ("architectures", "attention_bias", "head_dim", "hidden_act", "mlp_bias") if config.get(name) != theirs[name]]
    if any(theirs["rope_parameters"].get(name) != value for name, value in rope.items()):
        other.append("rope_parameters")
    if other:
        raise RequestError(f"config.json: {other[0]} is {config.get(other[0])!r} and Fournil's model has {theirs[other[0]]!r}")
    return model, config["vocab_size"]


def context_length(config: dict[str, Any]) -> int:
    """The most tokens a model with this `config.json` reads."""
    scaling = config.get("rope_parameters") or {}
    factor = scaling.get("factor", 1) if scaling.get("rope_type") == "linear" else 1
    return int(config["max_position_embeddings"] * factor)


def generation_config(chat: bool) -> dict[str, Any]:
    """Where generation stops: a base model at the end of the document, a chat model also at the end of its turn."""
    return {"bos_token_id": END_OF_TEXT, "eos_token_id": [IM_END, END_OF_TEXT] if chat else END_OF_TEXT, "pad_token_id": PAD}


def _check_shapes(state_dict: dict[str, Tensor], config: ModelConfig, vocab_size: int) -> None:
    import torch

    from training.model import Llama

    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in Llama(config, vocab_size).state_dict().items()}
    found = {name: tensor.shape for name, tensor in state_dict.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise WorkError(
            f"the weights do not fit the recipe's model ({len(wrong)} tensors, first {wrong[0]}: "
            f"{found.get(wrong[0])} where {wanted.get(wrong[0])} belongs); export them with the recipe that trained them"
        )
