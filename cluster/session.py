"""Connecting to Ray, with its chatter kept out of the user's way."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from cluster.errors import RequestError

LOCAL = "local"
AUTO = "auto"


def connect(address: str = LOCAL, cpus: int | None = None) -> str:
    """Connect to Ray and return the folder (or address) where its logs are.

    `local` starts a private cluster of this machine's cores, `auto` finds a running one, `ray://HOST:10001` goes
    through the Ray client. Connecting twice is fine. An address nobody answers at is a `RequestError`.
    """
    import ray

    if not ray.is_initialized():
        _quiet_environment()
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
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RequestError(
                f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head`, or use --address local"
            ) from None
        _quiet_data()
    return log_folder(address)


def disconnect() -> None:
    """Leave Ray; a private cluster stops."""
    import ray

    ray.shutdown()


def log_folder(address: str) -> str:
    """Where Ray's own logs are: the session folder on this machine, or the address of a remote cluster."""
    import ray

    if address.startswith("ray://"):
        return f"{address} (dashboard)"
    return str(Path(ray._private.worker._global_node.get_session_dir_path()) / "logs")


def _quiet_environment() -> None:
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
    logging.getLogger("ray.data").setLevel(logging.ERROR)
