"""Connecting to Ray, and being told quickly why that is not possible."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.session import connect

TRY_ALL = """
import sys
from cluster.errors import RequestError
from cluster.session import connect
for address in sys.argv[1:]:
    try:
        connect(address)
    except RequestError as error:
        print(error)
"""


@pytest.mark.usefixtures("ray_session")
def test_connecting_twice_is_fine_and_names_the_logs() -> None:
    logs = connect("local")
    assert connect("local") == logs
    assert (Path(logs) / "raylet.out").exists()


@pytest.mark.usefixtures("ray_session")
def test_the_token_of_a_private_cluster_is_its_owners_alone() -> None:
    token = Path.home() / ".ray" / "auth_token"
    if not token.exists():
        pytest.skip("Ray made no token file: one is given otherwise")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_addresses_nobody_answers_at_are_told_apart_in_one_line_each(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused and nobody else gets the port
        port = taken.getsockname()[1]
        addresses = [f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"http://127.0.0.1:{port}", "nowhere", "127.0.0.1:port"]
        done = subprocess.run(
            [sys.executable, "-c", TRY_ALL, *addresses],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"RAY_TMPDIR": str(tmp_path)},
        )
    refused, client, dashboard, nameless, portless = done.stdout.splitlines()
    assert refused.startswith(f"no Ray cluster answers at {addresses[0]} (Connection refused); start one with `ray start --head`")
    assert client.startswith(f"no Ray cluster answers at {addresses[1]} (Connection refused)")
    assert dashboard.startswith(f"{addresses[2]} takes jobs: use `fournil submit`")
    assert nameless.startswith("'nowhere' is no Ray address; give local, auto, HOST:6379 or ray://HOST:10001")
    assert portless.startswith("'127.0.0.1:port' is no Ray address")
