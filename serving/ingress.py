"""The HTTP side of the endpoint: OpenAI's routes, `/health`, `/metrics`, the chat page, and errors in OpenAI's shape.

This module imports vLLM (its request types); import it only where an endpoint is deployed or runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import ray
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from ray import serve
from ray.exceptions import ActorDiedError, RayError
from ray.llm._internal.serve.core.configs.openai_api_models import OpenAIHTTPException
from ray.llm._internal.serve.core.ingress.ingress import DEFAULT_ENDPOINTS
from ray.llm._internal.serve.core.ingress.middleware import SetRequestIdMiddleware
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse, JSONResponse, Response

CHAT_FOLDER = Path(__file__).parent / "chat"
LOADING, READY = "loading", "ready"
REPLICA_CHECK_SECONDS = 1.0
RETRY_AFTER_SECONDS = 2
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
ERROR_KINDS = {
    400: ("invalid_request_error", "invalid_request"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("timeout_error", "timeout"),
    429: ("rate_limit_error", "queue_full"),
    503: ("service_unavailable_error", "not_ready"),
}
"""Status to OpenAI's `type` and `code`; any other is a `server_error`."""

logger = logging.getLogger("ray.serve.fournil")


class ChatIngress(OpenAiIngress):
    """`OpenAiIngress` that answers 503 at once while no replica of the model runs, instead of letting requests wait."""

    def __init__(self, *args: Any, application: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._application = application
        self._deployments = [handle.deployment_name for handle in self._default_serve_handles.values()]
        self._state = LOADING
        self._watch = asyncio.get_running_loop().create_task(self._watch_replicas())

    async def _watch_replicas(self) -> None:
        while True:
            try:
                running = await asyncio.to_thread(_running_replicas, self._application)
                self._state = READY if all(running.get(name, 0) > 0 for name in self._deployments) else LOADING
            except (RayError, RuntimeError, KeyError) as error:
                logger.warning("cannot read the replicas' state, keeping %r: %s", self._state, error)
            await asyncio.sleep(REPLICA_CHECK_SECONDS)

    async def _process_llm_request(self, body: Any, call_method: str, raw_request: Request | None = None) -> Response:
        if self._state != READY:
            raise OpenAIHTTPException(503, "the model is not ready yet; try again shortly")
        try:
            return await super()._process_llm_request(body, call_method=call_method, raw_request=raw_request)
        except BackPressureError:
            # Ray Serve replaces any handler an application has for this error by one that answers in plain text.
            raise OpenAIHTTPException(429, "the queue is full; try again shortly") from None
        except (DeploymentUnavailableError, ActorDiedError):
            raise OpenAIHTTPException(503, "no replica of the model is running; try again shortly") from None

    async def health(self) -> Response:
        """200 once a replica of every model runs (each has generated text before it counts as running), 503 otherwise."""
        body = {"status": self._state, "models": sorted(self._model_cards)}
        if self._state == READY:
            return JSONResponse(body)
        return JSONResponse(body, 503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    async def metrics(self) -> Response:
        """Prometheus metrics of this node, Ray Serve's and vLLM's, as Ray's agent exports them."""
        node_id = ray.get_runtime_context().get_node_id()
        nodes = await asyncio.to_thread(ray.nodes)
        node = next(node for node in nodes if node["NodeID"] == node_id)
        try:
            async with httpx.AsyncClient(timeout=5.0) as client:
                answer = await client.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
        except httpx.HTTPError as error:
            raise HTTPException(503, f"Ray's metrics agent does not answer on this node: {error}") from None
        return Response(answer.content, answer.status_code, media_type="text/plain; version=0.0.4")

    async def page(self) -> Response:
        """The chat page."""
        return FileResponse(CHAT_FOLDER / "index.html", headers=PAGE_HEADERS)

    async def script(self) -> Response:
        """The chat page's script."""
        return FileResponse(CHAT_FOLDER / "chat.js", headers=PAGE_HEADERS)


def build_ingress() -> Any:
    """The class to deploy: `ChatIngress` with its routes on a FastAPI application of our own (no CORS: same origin only)."""
    app = FastAPI(title="Fournil", docs_url=None, redoc_url=None, openapi_url=None)
    for kind, handler in EXCEPTION_HANDLERS:
        app.add_exception_handler(kind, handler)
    app.add_middleware(SetRequestIdMiddleware)
    routes: dict[str, Callable[[FastAPI], Callable]] = {
        "health": lambda app: app.get("/health"),
        "metrics": lambda app: app.get("/metrics"),
        "page": lambda app: app.get("/"),
        "script": lambda app: app.get("/chat.js"),
        **{name: DEFAULT_ENDPOINTS[name] for name in ("models", "model_data", "completions", "chat", "tokenize", "detokenize")},
    }
    return make_fastapi_ingress(ChatIngress, endpoint_map=routes, app=app)


def openai_error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the shape OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`."""
    kind, code = ERROR_KINDS.get(status, ("server_error", "internal_error"))
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers=headers)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return openai_error(error.status_code, str(error.detail), dict(error.headers or {}))


async def _on_openai_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, OpenAIHTTPException)
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status_code in (429, 503) else None
    return openai_error(error.status_code, error.message, retry)


async def _on_invalid_body(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return openai_error(400, f"{where or 'body'}: {first['msg']}")


async def _on_anything_else(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", getattr(request.state, "request_id", "?"), exc_info=error)
    return openai_error(500, "the request failed inside the server; its log says why")


EXCEPTION_HANDLERS: tuple[tuple[type[Exception], Callable[[Request, Exception], Any]], ...] = (
    (StarletteHTTPException, _on_http_error),
    (OpenAIHTTPException, _on_openai_error),
    (RequestValidationError, _on_invalid_body),
    (Exception, _on_anything_else),
)


def _running_replicas(application: str) -> dict[str, int]:
    """Replicas in state RUNNING, by deployment."""
    deployments = serve.status().applications[application].deployments
    return {
        name: sum(count for state, count in deployment.replica_states.items() if state == "RUNNING")
        for name, deployment in deployments.items()
    }
