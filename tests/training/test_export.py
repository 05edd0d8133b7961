"""The exported folder in transformers: same logits, right stops, same bytes each time."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import torch

from cluster.errors import WorkError
from cluster.storage import Folder
from tests.served import byte_tokenizer
from training.chat import CHAT_TEMPLATE
from training.config import ModelConfig
from training.export import TOKENIZER_FILES, context_length, export_model
from training.model import Llama, init_weights
from training.tokenizer import SPECIAL_TOKENS

VOCAB = 16 + 256


@pytest.fixture
def tokenizer_folder(storage: Folder) -> Folder:
    """A byte-level tokenizer without merges, with the special tokens in their places."""
    folder = storage / "tokenizer"
    names = {"eos_token": SPECIAL_TOKENS[0], "bos_token": SPECIAL_TOKENS[0], "pad_token": SPECIAL_TOKENS[1]}
    folder.write_text("tokenizer.json", byte_tokenizer().to_str())
    folder.write_json("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE, **names})
    folder.write_json("special_tokens_map.json", names)
    return folder


def model_of(**changes: Any) -> Llama:
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "initializer_range": 0.2,
        "rope_theta": 20_000.0,
    }
    model = Llama(ModelConfig(**(small | changes)), VOCAB)
    init_weights(model, 5)
    return model


SHAPES = [
    pytest.param({}, id="tied"),
    pytest.param({"tie_word_embeddings": False, "num_key_value_heads": 4}, id="untied-mha"),
    pytest.param({"rope_scaling": {"method": "linear", "factor": 2}}, id="linear"),
    pytest.param({"rope_scaling": {"method": "ntk", "factor": 2}}, id="ntk"),
    pytest.param({"rope_scaling": {"method": "yarn", "factor": 2}}, id="yarn"),
]


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_loads_it_with_the_trainers_log_probabilities(
    storage: Folder, tokenizer_folder: Folder, changes: dict[str, Any], dtype: Any
) -> None:
    """Of each token of four rows, within 1e-4 in fp32 and 1e-2 in bf16 (there with weights as wide as the demo's)."""
    from transformers import AutoModelForCausalLM

    model = model_of(**changes, initializer_range=0.2 if dtype == "float32" else 0.06)
    export_model(model.state_dict(), model.config, VOCAB, tokenizer_folder, storage, dtype=dtype)
    folder = str(storage.local_path("export"))
    loaded, info = cast(Any, AutoModelForCausalLM).from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert loaded.dtype == getattr(torch, dtype)
    assert context_length(loaded.config.to_dict()) == model.config.max_position_embeddings
    tokens = torch.randint(16, VOCAB, (4, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = -model.to(loaded.dtype)(tokens[:, :-1], tokens[:, 1:], reduction="none")
        theirs = loaded(input_ids=tokens[:, :-1]).logits.float().log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 if dtype == "float32" else 1e-2)


def test_tokenizer_and_stops_come_along(storage: Folder, tokenizer_folder: Folder) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    model = model_of()
    for chat in (False, True):
        export_model(model.state_dict(), model.config, VOCAB, tokenizer_folder, storage, name=f"chat-{chat}", chat=chat)
    tokenizer = AutoTokenizer.from_pretrained(str(storage.local_path("chat-True")))
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "Où est le four ?"}], tokenize=False)
    assert turn == "<|im_start|>user\nOù est le four ?<|im_end|>\n"
    assert tokenizer.decode(tokenizer.encode("Où est le four ?")) == "Où est le four ?"
    stops = {chat: GenerationConfig.from_pretrained(str(storage.local_path(f"chat-{chat}"))).eos_token_id for chat in (False, True)}
    assert stops == {False: 0, True: [3, 0]}
    config = json.loads((storage / "chat-True").read_text("config.json"))
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 0, 1)


def test_generation_stops_at_the_end_of_a_turn(storage: Folder, tokenizer_folder: Folder) -> None:
    """With weights that always answer <|im_end|>, generation from the folder ends after one token."""
    from transformers import AutoModelForCausalLM

    model = model_of(tie_word_embeddings=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        assert model.lm_head is not None
        model.model.embed_tokens.weight.fill_(1.0)
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight[3] = 1.0
    export_model(model.state_dict(), model.config, VOCAB, tokenizer_folder, storage, chat=True)
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(storage.local_path("export")))
    assert loaded.generate(torch.tensor([[20, 21]]), max_new_tokens=5, do_sample=False).tolist() == [[20, 21, 3]]


def test_same_weights_give_the_same_bytes(storage: Folder, tokenizer_folder: Folder) -> None:
    model = model_of()
    state = model.state_dict()
    export_model(state, model.config, VOCAB, tokenizer_folder, storage, name="one")
    export_model({name: state[name] for name in reversed(state)}, model.config, VOCAB, tokenizer_folder, storage, name="two")
    one, two = storage / "one", storage / "two"
    assert one.names() == two.names() == sorted(["config.json", "generation_config.json", "model.safetensors", *TOKENIZER_FILES])
    assert all(one.read_bytes(name) == two.read_bytes(name) for name in one.names())


def test_weights_of_another_shape_are_refused(storage: Folder, tokenizer_folder: Folder) -> None:
    model = model_of()
    with pytest.raises(WorkError, match=r"model\.embed_tokens\.weight"):
        export_model(model.state_dict(), model.config, VOCAB + 1, tokenizer_folder, storage)
    state = model.state_dict() | {"lm_head.weight": torch.zeros(VOCAB, 32)}
    with pytest.raises(WorkError, match=r"1 tensors, first lm_head\.weight"):
        export_model(state, model.config, VOCAB, tokenizer_folder, storage)
    assert not storage.exists("export")
