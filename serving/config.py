"""Recipe section of the endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.config import Section


class ServeConfig(Section):
    """How vLLM runs behind Ray Serve. `host` other than loopback opens the endpoint to the network."""

    model_id: str = "fournil"
    accelerator: Literal["cpu", "gpu"] = "cpu"
    replicas: int = Field(default=1, ge=1)
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    max_model_len: int | None = Field(default=None, ge=16, description="None takes the model's own context")
    kv_cache_gib: float = Field(default=1.0, gt=0, description="CPU memory for the KV cache")
    threads: int | None = Field(default=None, ge=1, description="CPU cores of each worker; None shares all but one among them")
    enforce_eager: bool = True
    tensor_parallel: int = Field(default=1, ge=1)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_ongoing_requests: int = Field(default=64, ge=1)
    max_queued_requests: int = Field(default=256, ge=1, description="requests beyond these two numbers are answered 429")
