"""Recipe section of the endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.config import Section


class ServeConfig(Section):
    """How vLLM runs behind Ray Serve. `host` other than loopback opens the endpoint to the network."""

    model_id: str = "fournil"
    accelerator: Literal["cpu", "gpu"] = "cpu"
    replicas: int = Field(1, ge=1)
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    max_model_len: int | None = Field(None, ge=16, description="None takes the model's own context")
    kv_cache_gib: float = Field(1.0, gt=0, description="CPU memory for the KV cache")
    enforce_eager: bool = True
    tensor_parallel: int = Field(1, ge=1)
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    max_ongoing_requests: int = Field(64, ge=1)
    max_queued_requests: int = Field(256, ge=0)
