"""vLLM without a server, with the options the server uses: text generation and per-token log-probabilities."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import RequestError
from serving.config import ServeConfig

if TYPE_CHECKING:
    from vllm import LLM

GIB = 1 << 30
ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of LoRA adapters that vLLM makes room for (`vllm.config.lora.MaxLoRARanks`)."""


def engine_kwargs(config: ServeConfig, model_folder: str) -> dict[str, Any]:
    """vLLM's engine arguments, the same for the server and for `OfflineEngine`. Code in the model folder never runs."""
    check_model_folder(model_folder)
    options: dict[str, Any] = {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel,
        "trust_remote_code": False,
        "enable_prefix_caching": True,
        "use_tqdm_on_load": False,
    }
    if config.accelerator == "cpu":
        options["kv_cache_memory_bytes"] = int(config.kv_cache_gib * GIB)
    return options


def engine_environment(config: ServeConfig, logging_config: Path) -> dict[str, str]:
    """Environment of every process that imports vLLM; it must be set before the import."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_LOGGING_CONFIG_PATH": str(logging_config),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if config.enforce_eager:
        # vLLM compiles a few small sampling functions even when eager: 13 s of the first request.
        environment["TORCHDYNAMO_DISABLE"] = "1"
    if config.accelerator == "cpu":
        # `nobind` leaves the placing of threads to the kernel: binding to fixed cores collides with whatever else runs there.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    return environment


def check_model_folder(model_folder: str) -> None:
    """A `RequestError` unless `model_folder` is a Hugging Face export with weights and a tokenizer."""
    folder = Path(model_folder)
    if not folder.is_dir():
        raise RequestError(f"no model folder at {folder}; give the export folder of a finished run")
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise RequestError(f"{folder} is not a model: {', '.join(missing)} missing; give the export folder of a finished run")


def write_logging_config(log_file: Path) -> Path:
    """Write the logging configuration that sends vLLM's messages to `log_file`, and return its path."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    path = log_file.with_suffix(".logging.json")
    handler = {"class": "logging.FileHandler", "formatter": "line", "filename": str(log_file.absolute()), "delay": True}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(levelname)s %(asctime)s %(process)d [%(name)s:%(lineno)d] %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return path


class OfflineEngine:
    """One vLLM engine inside this process, meant for a Ray actor with one CPU (or one GPU).

    vLLM reads its environment once, so a process can hold only one kind of engine; log lines go to `log_file`. `adapter` is
    the folder of a LoRA adapter in peft's format, which all answers then come from.
    """

    def __init__(self, model_folder: str, config: ServeConfig, log_file: str, adapter: str | None = None) -> None:
        options = engine_kwargs(config, model_folder)
        if adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": adapter_rank(adapter)}
        if "vllm" not in sys.modules:
            os.environ.update(engine_environment(config, write_logging_config(Path(log_file))))
            if config.accelerator == "cpu":
                # One process instead of three; vLLM asks for its own worker process only to set OpenMP's environment.
                os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._llm: LLM = LLM(model=model_folder, skip_tokenizer_init=False, disable_log_stats=True, **options)
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, adapter)

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        """Greedy continuation of each prompt (token ids), without the stop token."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop_token_ids=stop_token_ids, detokenize=False)
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False, lora_request=self._adapter
        )
        stop = set(stop_token_ids)
        return [_without_stop(list(output.outputs[0].token_ids), stop) for output in outputs]

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        """Natural log-probability of tokens 1..n-1 of each sequence, given those before; n-1 values for n tokens."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        outputs = self._llm.generate(
            [{"prompt_token_ids": sequence} for sequence in sequences], sampling, use_tqdm=False, lora_request=self._adapter
        )
        return [_own_logprobs(sequence, output.prompt_logprobs) for sequence, output in zip(sequences, outputs, strict=True)]

    def close(self) -> None:
        """Free the weights and the KV cache."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm


def adapter_rank(adapter: str) -> int:
    """The least rank vLLM makes room for that the adapter fits; a `RequestError` for one that it cannot load."""
    place = Path(adapter) / "adapter_config.json"
    if not place.is_file():
        raise RequestError(f"{adapter} is no adapter: {place.name} missing; give the adapter folder of a finished run")
    rank = json.loads(place.read_text("utf-8"))["r"]
    room = [most for most in ADAPTER_RANKS if most >= rank]
    if not room:
        raise RequestError(f"{adapter} has rank {rank} and vLLM loads adapters up to {ADAPTER_RANKS[-1]}")
    return room[0]


def _without_stop(tokens: list[int], stop: set[int]) -> list[int]:
    return tokens[:-1] if tokens and tokens[-1] in stop else tokens


def _own_logprobs(sequence: list[int], prompt_logprobs: Any) -> list[float]:
    """vLLM gives `None` for the first token, then a map from token id to log-probability that holds at least the token itself."""
    return [prompt_logprobs[position][sequence[position]].logprob for position in range(1, len(sequence))]
