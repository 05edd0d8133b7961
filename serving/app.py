"""Deploys a model behind Ray Serve and waits until it is warm: `deploy`, and `serve_forever` for the command line.

Two deployments: the ingress (`serving/ingress.py`: HTTP, errors, chat page) and the model (`serving/server.py`: vLLM).
Ray Serve's and vLLM's messages go to the folder `logs`; on a cluster of several machines vLLM's stay with Ray's own logs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from cluster.errors import RequestError, WorkError
from cluster.session import connect, disconnect
from serving.config import ServeConfig
from serving.engine import check_model_folder, engine_environment, engine_kwargs, write_logging_config

if TYPE_CHECKING:
    from ray.serve import Application

APPLICATION = "fournil"
VLLM_LOG = "vllm.log"
EXCEPTION_LINE = re.compile(r"^[\w.]+(Error|Exception): ")
FREE_PORTS = range(20_000, 32_000)
REPORT_SECONDS = 5.0
POLL_SECONDS = 0.2
HEALTH_CHECK_SECONDS = 10.0
HEALTH_PERIOD_SECONDS = 3.0
HEALTH_TIMEOUT_SECONDS = 60.0
STOP_WAIT_SECONDS = 0.5
STOP_TIMEOUT_SECONDS = 10.0

Say = Callable[[str], None]


@dataclass
class Endpoint:
    """A warm endpoint at `url`; `logs` is the folder with Ray Serve's and vLLM's messages."""

    url: str
    model_id: str
    logs: Path
    owns_ray: bool = False

    def healthy(self) -> bool:
        """Whether `/health` answers 200."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Let running requests finish, then end the endpoint (and Ray, where `deploy` started it)."""
        import ray
        from ray import serve

        if not ray.is_initialized():
            return
        try:
            if APPLICATION in serve.status().applications:
                serve.delete(APPLICATION)
        finally:
            if self.owns_ray:
                disconnect()
            else:
                serve.shutdown()


def deploy(model_folder: str, config: ServeConfig, logs: Path, say: Say | None = None) -> Endpoint:
    """Serve the model in `model_folder` and return once it has generated text and `/health` answers 200.

    Connects to a private Ray first when none is connected. `say` gets a line at least every few seconds. Raises `RequestError`
    before anything starts when the folder is no model or the port is in use, `WorkError` when the model does not start.
    """
    import ray

    check_model_folder(model_folder)
    port = free_port(config.host, config.port)
    logs.mkdir(parents=True, exist_ok=True)
    owns_ray = not ray.is_initialized()
    endpoint = Endpoint(f"http://{_url_host(config.host)}:{port}", config.model_id, logs, owns_ray)
    try:
        with _Heartbeat(say) as heartbeat:
            _start(str(Path(model_folder).absolute()), config, port, logs, heartbeat)
            _wait_until_healthy(endpoint)
    except BaseException:
        with contextlib.suppress(Exception):
            endpoint.stop()
        raise
    return endpoint


def serve_forever(model_folder: str, config: ServeConfig, logs: Path, say: Say) -> None:
    """Deploy, say where the endpoint is and how to use it, and serve until Ctrl-C or SIGTERM; then stop cleanly."""
    check_model_folder(model_folder)
    stopping = threading.Event()
    with _until_signal(stopping):
        try:
            endpoint = deploy(model_folder, config, logs, say)
        except KeyboardInterrupt:
            say("stopped before the model was up")
            return
        for line in usage_lines(endpoint):
            say(line)
        try:
            while not stopping.wait(HEALTH_CHECK_SECONDS):
                if not endpoint.healthy():
                    say(f"the endpoint is not healthy; see {endpoint.logs}")
        except KeyboardInterrupt:
            pass
        say("stopping")
        endpoint.stop()
    say("stopped")


def usage_lines(endpoint: Endpoint) -> list[str]:
    """What to do with a running endpoint."""
    body = f'{{"model": "{endpoint.model_id}", "messages": [{{"role": "user", "content": "Bonjour"}}]}}'
    return [
        f"serving {endpoint.model_id} at {endpoint.url}",
        f"  chat page   {endpoint.url}/",
        f"  terminal    fournil chat {endpoint.url}",
        f"  OpenAI API  curl {endpoint.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'",
        f"  logs        {endpoint.logs}",
    ]


class _Heartbeat:
    """Says each phase when it begins, and how long it has been every few seconds, while the main thread waits."""

    def __init__(self, say: Say | None) -> None:
        self._say = say or (lambda _: None)
        self._phase, self._begun = "", time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def phase(self, name: str) -> None:
        self._phase, self._begun = name, time.monotonic()
        self._say(name)

    def _beat(self) -> None:
        while not self._stopping.wait(REPORT_SECONDS):
            self._say(f"{self._phase} ({time.monotonic() - self._begun:.0f} s)")


def _start(model_folder: str, config: ServeConfig, port: int, logs: Path, heartbeat: _Heartbeat) -> None:
    """Start Ray and Ray Serve while vLLM is being imported (each takes seconds), then hand the application over."""
    environment = engine_environment(config, write_logging_config(logs / VLLM_LOG))
    if config.accelerator == "cpu":
        environment["OMP_NUM_THREADS"] = str(_threads(config))
    os.environ.update({"VLLM_LOGGING_CONFIG_PATH": environment["VLLM_LOGGING_CONFIG_PATH"], "RAY_USAGE_STATS_ENABLED": "0"})
    heartbeat.phase("starting Ray Serve")
    with ThreadPoolExecutor(1) as importer:
        imported = importer.submit(_import_quietly)
        _start_serve(config.host, port, logs)
        imported.result()
    if not _one_machine():
        del environment["VLLM_LOGGING_CONFIG_PATH"]
    heartbeat.phase("loading the model")
    from ray import serve

    application = _application(model_folder, config, environment)
    target = serve.RunTarget(target=application, name=APPLICATION, route_prefix="/", logging_config=_logging_config(logs))
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def _start_serve(host: str, port: int, logs: Path) -> None:
    import ray

    if not ray.is_initialized():
        with _own_signal_handlers():
            connect("local")
    _quiet_driver(logs)
    from ray import serve

    if serve.status().proxies:
        raise RequestError("this Ray cluster already serves an endpoint; stop that one first, or use --address local")
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=_logging_config(logs))
    except RuntimeError as error:
        raise WorkError(f"Ray Serve did not start on {host}:{port} ({str(error).splitlines()[-1]}); see {logs}") from None


def _application(model_folder: str, config: ServeConfig, environment: dict[str, str]) -> Application:
    """The ingress bound to the model's deployment."""
    from ray import serve
    from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata
    from ray.serve.llm import build_llm_deployment

    from serving.ingress import build_ingress

    llm_config = _llm_config(model_folder, config, environment)
    ingress = serve.deployment(
        build_ingress(),
        name="ingress",
        num_replicas=1,
        # Only rejections and page loads ever pile up here; the model's own queue is the bounded one.
        max_ongoing_requests=1_000_000,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": environment}},
        graceful_shutdown_wait_loop_s=STOP_WAIT_SECONDS,
        graceful_shutdown_timeout_s=STOP_TIMEOUT_SECONDS,
    )
    return ingress.bind(
        llm_deployments={config.model_id: build_llm_deployment(llm_config)},
        model_cards={config.model_id: to_model_metadata(config.model_id, llm_config)},
        application=APPLICATION,
    )


def _llm_config(model_folder: str, config: ServeConfig, environment: dict[str, str]) -> Any:
    from ray.llm._internal.common.callbacks.base import CallbackConfig
    from ray.llm._internal.serve.core.configs.accelerators import CPUConfig, GPUConfig
    from ray.serve.llm import LLMConfig

    from serving.server import ModelServer

    placement: dict[str, Any] = {}
    if config.accelerator == "cpu":
        # The replica's own actor asks for nothing more, so that two cores carry the endpoint.
        placement = {"placement_group_config": {"bundles": [{"CPU": _threads(config)}] * config.tensor_parallel}}
    return LLMConfig(
        model_loading_config={"model_id": config.model_id, "model_source": model_folder},
        accelerator_config=CPUConfig() if config.accelerator == "cpu" else GPUConfig(),
        engine_kwargs=engine_kwargs(config, model_folder),
        server_cls=ModelServer,
        runtime_env={"env_vars": environment},
        experimental_configs={"stream_batching_interval_ms": 0},
        callback_config=CallbackConfig(callback_class="serving.server.LocalFiles"),
        deployment_config={
            "num_replicas": config.replicas,
            "max_ongoing_requests": config.max_ongoing_requests,
            "max_queued_requests": config.max_queued_requests,
            "max_constructor_retry_count": 1,
            "health_check_period_s": HEALTH_PERIOD_SECONDS,
            "health_check_timeout_s": HEALTH_TIMEOUT_SECONDS,
            "ray_actor_options": {"num_cpus": 0},
            "graceful_shutdown_wait_loop_s": STOP_WAIT_SECONDS,
            "graceful_shutdown_timeout_s": STOP_TIMEOUT_SECONDS,
        },
        **placement,
    )


def _threads(config: ServeConfig) -> int:
    """Cores of one vLLM worker: what the recipe says, or an equal share of all but one (HTTP and Ray need that one)."""
    return config.threads or max(1, ((os.cpu_count() or 1) - 1) // (config.replicas * config.tensor_parallel))


def _wait_until_healthy(endpoint: Endpoint) -> None:
    """Poll `/health` until it answers 200; a model that fails to start is a `WorkError`."""
    from ray import serve

    while not endpoint.healthy():
        overview = serve.status().applications.get(APPLICATION)
        if overview is not None and overview.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise WorkError(f"the model did not start: {_reason(overview, endpoint.logs / VLLM_LOG)}; see {endpoint.logs}")
        time.sleep(POLL_SECONDS)


def _reason(overview: Any, vllm_log: Path) -> str:
    """The last exception in vLLM's log, where it names the root cause; otherwise the last line of Ray Serve's own message."""
    if vllm_log.is_file():
        exceptions = [line for line in vllm_log.read_text(errors="replace").splitlines() if EXCEPTION_LINE.match(line)]
        if exceptions:
            return exceptions[-1]
    messages = [deployment.message for deployment in overview.deployments.values() if deployment.message] or [overview.message]
    lines = [line.strip() for line in messages[0].splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _import_quietly() -> None:
    """Import ray.serve.llm, which takes over the root logger, and give the logger back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import serving.ingress
    import serving.server  # noqa: F401

    root.handlers, root.level = handlers, level


def _quiet_driver(logs: Path) -> None:
    """Send what Ray Serve says in this process to `driver.log`."""
    from ray import serve  # noqa: F401  (its import installs the handlers replaced here)

    serve_logger = logging.getLogger("ray.serve")
    for handler in list(serve_logger.handlers):
        serve_logger.removeHandler(handler)
    handler = logging.FileHandler(logs / "driver.log", delay=True)
    handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s [%(name)s] %(message)s"))
    serve_logger.addHandler(handler)
    serve_logger.propagate = False


def _logging_config(logs: Path) -> dict[str, Any]:
    return {"logs_dir": str(logs.absolute()), "enable_access_log": False} if _one_machine() else {"enable_access_log": False}


def _one_machine() -> bool:
    import ray

    return len([node for node in ray.nodes() if node["Alive"]]) == 1


def free_port(host: str, port: int = 0) -> int:
    """`port` if nothing listens there on `host` (a `RequestError` otherwise), or, for 0, some port that is free.

    Ports to choose from lie below the range that the kernel and Ray give out by themselves, so that none takes it meanwhile.
    """
    _check_free(host, port)
    if port:
        return port
    for candidate in random.SystemRandom().sample(FREE_PORTS, 100):
        with contextlib.suppress(RequestError):
            _check_free(host, candidate)
            return candidate
    raise RequestError(f"no free port on {host}; give one with --port")


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise RequestError(f"{host} is not an address of this machine; use --host 127.0.0.1 or 0.0.0.0") from None
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise RequestError(f"cannot listen on {host}:{port}: {reason}; choose another with --port (0 takes a free one)") from None


def _url_host(host: str) -> str:
    """The host for a URL that this machine can open."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray takes SIGTERM over when it starts; give it back to the handler this process had set, if any."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _until_signal(stopping: threading.Event) -> Iterator[None]:
    """While inside, SIGTERM and SIGINT set `stopping` and interrupt whatever the main thread waits for."""

    def interrupt(*_: Any) -> None:
        stopping.set()
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
