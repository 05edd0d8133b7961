"""Connecting to Ray, with its chatter kept out of the user's way."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from cluster.errors import RequestError, WorkError
from cluster.storage import Folder

LOCAL = "local"
AUTO = "auto"
CLIENT_PORT = 10001
PROBE_SECONDS = 5.0
LOOK_SECONDS = 120.0


def connect(address: str = LOCAL, cpus: int | None = None) -> str:
    """Connect to Ray and return the folder (or address) where its logs are.

    `local` starts a private cluster of this machine's cores, `auto` finds a running one, `HOST:6379` names one that
    this machine belongs to, `ray://HOST:10001` goes through the Ray client. Connecting twice is fine. An address nobody
    answers at is a `RequestError`.
    """
    import ray

    if not ray.is_initialized():
        _environment()
        if address not in (LOCAL, AUTO):
            _probe(address)
        handler = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
        try:
            if address == LOCAL:
                ray.init(
                    address=LOCAL,
                    num_cpus=cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises bare ones when a node is slow to start
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if address == LOCAL:
                raise WorkError(f"Ray does not start on this machine ({reason})") from None
            raise RequestError(
                f"no Ray cluster lets us in at {address} ({reason}); start one with `ray start --head`, give it the token it wants"
                " (RAY_AUTH_MODE=token, and the token as Ray reads it), or use --address local"
            ) from None
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)  # Ray's own aborts the process with a stack trace
        if address == LOCAL:
            _protect_token()
        _quiet_data()
    return log_folder(address)


def _probe(address: str) -> None:
    """Fail in seconds, with a reason, where Ray itself would keep trying for minutes."""
    if address.startswith(("http://", "https://")):
        raise RequestError(
            f"{address} takes jobs: use `fournil submit`, or give --address ray://HOST:{CLIENT_PORT}, HOST:6379, auto or local"
        )
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (CLIENT_PORT if parts.scheme == "ray" else None)
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise RequestError(f"{address!r} is no Ray address; give local, auto, HOST:6379 or ray://HOST:{CLIENT_PORT}")
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise RequestError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one with `ray start --head`, or use --address local"
        ) from None


def _protect_token() -> None:
    """Ray writes the token it makes for local clusters so that every user of the machine can read it."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def check_shared(storage: Folder) -> None:
    """A `RequestError` unless every host of the cluster sees what this process writes to `storage`."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(hosts) < 2:
        return
    name = f".seen-by-all-{uuid.uuid4().hex}"
    storage.write_text(name, "written by the host that bakes; safe to delete\n")
    try:
        look = ray.remote(num_cpus=0)(_sees)
        looks = {id: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote(storage, name) for id in hosts}
        blind = [hosts[id] for id, seen in looks.items() if not ray.get(seen, timeout=LOOK_SECONDS)]
    except RayError as error:
        raise WorkError(f"not every host of the cluster answers ({type(error).__name__}); see `ray status`") from None
    finally:
        storage.delete(name)
    if blind:
        raise RequestError(
            f"storage {storage} is not the same folder on {', '.join(blind)}; give --storage a folder that all hosts mount, or a URL"
        )


def _sees(storage: Folder, name: str) -> bool:
    return storage.exists(name)


def disconnect() -> None:
    """Leave Ray; a private cluster stops."""
    import ray

    ray.shutdown()


def log_folder(address: str) -> str:
    """Where Ray's own logs are: the session folder on this machine, or the address of a remote cluster."""
    if address.startswith("ray://"):
        return f"{address} (dashboard)"
    from ray._private import worker

    node = worker._global_node
    return str(Path(node.get_session_dir_path()) / "logs") if node is not None else address


def _environment() -> None:
    """What workers inherit."""
    import pyarrow as pa

    if "jemalloc" in pa.supported_memory_backends():
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")  # hands freed memory back, which mimalloc keeps
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "20000")  # a shuffle's steps would start new workers each
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _quiet_data() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_rich_progress_bars = False
    context.enable_operator_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, too
