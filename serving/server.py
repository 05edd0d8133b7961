"""The model's deployment: ray.serve.llm's server, warm before Ray Serve sends it a request.

This module imports vLLM; import it only where a model is deployed or runs.
"""

from __future__ import annotations

from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.configs.openai_api_models import ErrorResponse
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest

WARM_UP_TOKENS = 8


class LocalFiles(CallbackBase):
    """Tells ray.serve.llm that the model is already on disk: no task on each node that looks for files to download."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class OneProcessEngine(VLLMEngine):
    """`VLLMEngine` whose engine process is also its only worker, and whose `/tokenize` works.

    On CPU vLLM starts a worker process of its own for every engine, to set OpenMP's environment there. The replica's
    environment already holds it (`engine_environment`), so one process does, which saves an import of vLLM and a copy of torch.
    """

    async def start(self) -> None:
        await super().start()
        # ray.serve.llm 2.60 reads the name that vLLM used before 0.29.
        self._oai_serving_tokenization = self._app_state.serving_tokenization

    def _start_async_llm_engine(self, vllm_engine_args: Any, vllm_engine_config: Any, placement_group: Any) -> Any:
        from vllm.platforms import current_platform

        if current_platform.is_cpu() and vllm_engine_config.parallel_config.world_size == 1:
            vllm_engine_config.parallel_config.distributed_executor_backend = "uni"
        return super()._start_async_llm_engine(vllm_engine_args, vllm_engine_config, placement_group)


class ModelServer(LLMServer):
    """`LLMServer` that has generated text before its constructor returns: no client ever meets a cold replica."""

    _default_engine_cls = OneProcessEngine

    async def start(self) -> None:
        await super().start()
        await self._warm_up(self._llm_config.model_id)

    async def _warm_up(self, model_id: str) -> None:
        """Sample a few tokens with log-probabilities through the chat template, or as a plain completion where there is none."""
        sampling: dict[str, Any] = {"max_tokens": WARM_UP_TOKENS, "temperature": 0.8, "top_p": 0.9}
        chat = ChatCompletionRequest(
            model=model_id, messages=[{"role": "user", "content": "Bonjour"}], logprobs=True, top_logprobs=1, **sampling
        )
        completion = CompletionRequest(model=model_id, prompt="Bonjour", logprobs=1, **sampling)
        for method, request in (("chat", chat), ("completions", completion)):
            responses = [response async for response in getattr(self.engine, method)(request)]
            if not isinstance(responses[0], ErrorResponse):
                return
        raise RuntimeError(f"the warm-up request failed: {responses[0].error.message}")
