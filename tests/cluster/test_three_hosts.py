"""A cluster of three hosts with token authentication: jobs over HTTP, work on every host, a host lost on the way.

The hosts are network namespaces (`hosts.py`). Where those cannot be made these tests are skipped, but never on CI.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from fournil.bake import STAGES as ALL_STAGES
from tests.cluster.hosts import Host, NoNamespaces, joined_hosts
from tests.corpus import prose

REPOSITORY = Path(__file__).parents[2]
UNTIL = "clean"
STAGES = [stage.name for stage in ALL_STAGES].index(UNTIL) + 1
SOURCES = 6
DOCUMENTS = 40


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """A head and two workers of one CPU each."""
    try:
        network = joined_hosts(3)
        made = network.__enter__()
    except NoNamespaces as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the three-host test must run on CI: {reason}")
        pytest.skip(f"no three hosts here: {reason}")
    try:
        head, *workers = made
        head.start_ray()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda worker: worker.start_ray(head), workers))
        yield made
    finally:
        network.__exit__(*sys.exc_info())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all hosts mount: the sources, and the storages of bakes."""
    folder = tmp_path_factory.mktemp("shared")
    sources = []
    for number in range(SOURCES):
        lang = ("fr", "en")[number % 2]
        texts = [prose(lang, seed=1000 * number + document, count=12) for document in range(DOCUMENTS)]
        path = folder / f"{lang}-{number}.jsonl"
        path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
        sources.append(
            {
                "name": f"{lang}-{number}",
                "reader": "jsonl",
                "lang": lang,
                "family": "internet",
                "license": "CC0-1.0",
                "paths": [str(path)],
            }
        )
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "trois", "sources": sources}), encoding="utf-8")
    return folder


def _url(hosts: list[Host]) -> str:
    return f"http://{hosts[0].address}:8265"


def _fournil(host: Host, *arguments: str, env: dict[str, str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return host.run(sys.executable, "-m", "fournil.cli", *arguments, env=env, timeout=timeout)


def _submit_arguments(hosts: list[Host], shared: Path, storage: str) -> list[str]:
    return ["submit", str(shared / "recipe.yaml"), "--until", UNTIL, "--storage", str(shared / storage), "--address", _url(hosts)]


def _data_hashes(storage: Path) -> dict[str, str]:
    """SHA-256 of every file of every artifact, but for manifests, which hold times."""
    files = [path for path in (storage / "artifacts").rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(storage)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def _manifests(storage: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(storage.glob("artifacts/*/*/manifest.json"))}


def _stage_of(storage: Path) -> str | None:
    """The stage that the bake in this storage is at."""
    record = storage / "runs/trois/run.json"
    return json.loads(record.read_text()).get("stage") if record.exists() else None


def _hosts_of(storage: Path) -> list[dict[str, Any]]:
    log = storage / "runs/trois/logs/hosts.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


WHERE_TASKS_RUN = """
import json, time, ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(0.5)
    return ray.util.get_node_ip_address()
print(json.dumps(sorted(set(ray.get([where.remote() for _ in range(9)])))))
"""


def test_tasks_run_on_all_three_hosts(hosts: list[Host]) -> None:
    head = hosts[0]
    done = head.run(sys.executable, "-c", WHERE_TASKS_RUN, env=head.environment(RAY_ADDRESS=f"{head.address}:6379"))
    assert json.loads(done.stdout.splitlines()[-1]) == [host.address for host in hosts]


def test_a_client_without_the_right_token_is_refused(hosts: list[Host]) -> None:
    client = hosts[2]
    arguments = ("status", "trois", "--address", _url(hosts))
    places = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token, in that order"
    without = _fournil(client, *arguments, env=client.environment(RAY_AUTH_MODE=None, RAY_AUTH_TOKEN_PATH=None))
    assert (without.returncode, without.stdout) == (
        2,
        f"fournil: {_url(hosts)} wants a token: set RAY_AUTH_MODE=token; the token is read from {places}\n",
    )
    other = _fournil(client, *arguments, env=client.environment(RAY_AUTH_TOKEN="0" * 64))
    assert (other.returncode, other.stdout) == (
        2,
        f"fournil: {_url(hosts)} refuses this token (RAY_AUTH_MODE=token): use the head's; it is read from {places}\n",
    )
    lost = _fournil(client, *arguments, env=client.environment(RAY_AUTH_TOKEN_PATH="/nowhere"))
    assert (lost.returncode, lost.stdout) == (
        2,
        f"fournil: RAY_AUTH_MODE=token is set and no token is found: put the head's into {places}\n",
    )


def test_a_host_that_is_not_there_is_one_line(hosts: list[Host]) -> None:
    done = _fournil(hosts[1], "status", "trois", "--address", "http://10.77.0.99:8265", timeout=30)
    assert done.returncode == 2
    assert done.stdout.startswith("fournil: no Ray cluster answers at http://10.77.0.99:8265; is its head up")
    assert done.stdout.count("\n") == 1


def test_a_bad_line_loses_no_log_line_and_no_submission(hosts: list[Host]) -> None:
    client = hosts[1]
    arguments = ("-m", "tests.cluster.faults", f"{hosts[0].address}:8265")
    done = client.run(sys.executable, *arguments, env=client.environment(PYTHONPATH=str(REPOSITORY)), timeout=120)
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["cuts"] >= 2
    assert [line for line in result["counted"] if line.startswith("ligne")] == [f"ligne é {number}" for number in range(90)]
    assert result["status"] == "SUCCEEDED"
    assert result["refused"] == 2
    assert result["wrong"].startswith("fournil-wrong-")
    assert result["wrong"].endswith("-1")
    assert result["wrong_status"] == "FAILED"
    assert result["said"][-1] == "fournil: recipe.yaml: 'sources' is missing; add it"
    assert result["error"][0] == 2
    assert "the bake ended with exit code 2" in result["error"][1]


CHECK_SHARED = """
import sys
from cluster.errors import RequestError
from cluster.session import check_shared, connect
from cluster.storage import Folder
connect(sys.argv[1])
for place in sys.argv[2:]:
    try:
        check_shared(Folder(place))
        print("shared")
    except RequestError as error:
        print(error)
"""


def test_storage_that_some_host_does_not_see_is_refused(hosts: list[Host], shared: Path) -> None:
    head = hosts[0]
    done = head.run(sys.executable, "-c", CHECK_SHARED, f"{head.address}:6379", str(shared), str(head.disk / "runs"))
    for_all, for_one = done.stdout.splitlines()[-2:]
    assert for_all == "shared"
    assert for_one.startswith(f"storage {head.disk}/runs is not the same folder on 10.77.0.")
    assert for_one.endswith("; give --storage a folder that all hosts mount, or a URL")
    assert not list(shared.glob(".seen-by-all-*"))


@pytest.fixture(scope="module")
def undisturbed(hosts: list[Host], shared: Path) -> Path:
    """The storage of a bake that was submitted from another host and ran in peace."""
    done = _fournil(hosts[1], *_submit_arguments(hosts, shared, "storage"))
    assert done.returncode == 0, done.stdout
    return shared / "storage"


def test_a_submitted_bake_runs_on_several_hosts_and_is_a_no_op_the_second_time(hosts: list[Host], shared: Path, undisturbed: Path) -> None:
    before, parts = _manifests(undisturbed), _hosts_of(undisturbed)
    assert len(before) == STAGES
    assert len({row["host"] for row in parts}) > 1
    second = _fournil(hosts[2], *_submit_arguments(hosts, shared, "storage"))
    assert second.returncode == 0, second.stdout
    assert f"{STAGES} stages, {STAGES} kept from before" in second.stdout
    assert _manifests(undisturbed) == before
    assert _hosts_of(undisturbed) == parts
    logs = _fournil(hosts[1], "logs", "trois", "--address", _url(hosts))
    assert f"{STAGES} stages, {STAGES} kept from before" in logs.stdout


def test_a_bake_survives_ctrl_c_at_its_client_and_the_loss_of_a_host(hosts: list[Host], shared: Path, undisturbed: Path) -> None:
    """The job goes on without its follower, the same submit joins it, and with host 3 gone amid dedup the result is the same."""
    storage = shared / "disturbed"
    arguments = _submit_arguments(hosts, shared, "disturbed")
    with hosts[1].start(sys.executable, "-m", "fournil.cli", *arguments) as follower:
        deadline = time.monotonic() + 240
        while _stage_of(storage) != UNTIL:
            assert follower.poll() is None, follower.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        hosts[2].kill()
        follower.send_signal(signal.SIGINT)
        said = follower.communicate(timeout=30)[0]
    joined = _fournil(hosts[1], *arguments)
    assert joined.returncode == 0, joined.stdout
    (first,) = set(re.findall(r"left job (\S+) running", said))
    assert f"job {first} " in joined.stdout
    assert _data_hashes(storage) == _data_hashes(undisturbed)


def test_the_token_is_in_no_log(hosts: list[Host], shared: Path) -> None:
    token = hosts[0].token_path.read_bytes()
    logs = [path for host in hosts for path in (host.folder / "ray").rglob("*") if path.is_file() and not path.is_symlink()]
    kept = [path for path in shared.rglob("*") if path.is_file()]
    assert len(logs) > 30
    assert [path for path in logs + kept if token in path.read_bytes()] == []
