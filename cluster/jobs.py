"""Bakes as Ray jobs: submit, follow, status, logs, stop, over the HTTP job API of a cluster's head.

Only the recipe travels (Fournil is installed on every node), so storage must be a place that all nodes see.
A submission id names the recipe, the storage and an attempt: while such a job runs, submitting it again re-attaches
to it; once it has ended, the next attempt is a new job, and a quick one if the artifacts are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.artifacts import canonical_json
from cluster.errors import RequestError, WorkError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

MAX_RECIPE_BYTES = 1 << 20
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
SUBMIT_ANSWER_SECONDS = 60.0
AGENT_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Waits between tries while a head that has just started has no agent that takes jobs yet."""
POLL_SECONDS = 5.0
REATTACH_SECONDS = 1.0
SILENT_SECONDS = 20.0
"""A bake says something every few seconds: a tail that does not for this long is taken for dead and begun again."""
LOST_SECONDS = 60.0
"""How long a head may stay silent before following gives up."""

SUCCEEDED, FAILED, STOPPED, RUNNING = "SUCCEEDED", "FAILED", "STOPPED", "RUNNING"
ENDED = frozenset({SUCCEEDED, FAILED, STOPPED})
TOKEN_PLACES = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token, in that order"


@dataclass(frozen=True)
class Job:
    """A bake on a cluster. `started` and `finished` are ISO 8601 in UTC; `exit_code` is the bake's own, once it ended."""

    id: str
    recipe: str
    storage: str
    status: str
    message: str
    exit_code: int | None
    started: str | None
    finished: str | None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def submit(
    address: str,
    recipe_text: str,
    recipe_name: str,
    storage: str,
    extra_args: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> str:
    """Start `fournil bake` of this recipe as a Ray job, or find it running already; returns its submission id.

    `storage` is a filesystem URL or a folder that every node has under the same path; `extra_args` go to `bake` as they
    are. A recipe too large to be one is a `RequestError`, as is an address nobody answers at or a missing token.
    """
    if (size := len(recipe_text.encode())) > MAX_RECIPE_BYTES:
        raise RequestError(f"recipe {recipe_name} has {size:,} bytes; up to {MAX_RECIPE_BYTES:,} may travel, so name data, do not hold it")
    place = storage if "://" in storage else os.path.abspath(storage)
    arguments = ["bake", "recipe.yaml", "--address", "auto", "--storage", place, *extra_args]
    entrypoint = shlex.join(["python", "-m", "fournil.cli", *arguments])
    prefix = submission_prefix(recipe_text, recipe_name, place, extra_args)
    url = _checked_url(address)
    client = _client(url)
    with _plain_errors(url):
        id, running = next_submission(prefix, {job.submission_id: str(job.status) for job in client.list_jobs() if job.submission_id})
        if running:
            if say:
                say(f"job {id} runs already")
            return id
        with tempfile.TemporaryDirectory(prefix="fournil-submit-") as folder:
            Path(folder, "recipe.yaml").write_text(recipe_text, encoding="utf-8")
            _send(client, id, entrypoint, folder, {"recipe": recipe_name, "storage": place})
    if say:
        say(f"submitted job {id}")
    return id


def submission_prefix(recipe_text: str, recipe_name: str, storage: str, extra_args: Sequence[str]) -> str:
    """`fournil-<name>-<hash>-`, the same for the same bake into the same storage."""
    digest = hashlib.sha256(canonical_json([recipe_text, storage, list(extra_args)]).encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", recipe_name)[:40]
    return f"fournil-{name}-{digest}-"


def next_submission(prefix: str, jobs: dict[str, str]) -> tuple[str, bool]:
    """The submission id to use given the statuses of the cluster's jobs, and whether that job is under way already."""
    attempts = {int(tail): status for id, status in jobs.items() if id.startswith(prefix) and (tail := id[len(prefix) :]).isdigit()}
    last = max(attempts, default=0)
    if last and attempts[last] not in ENDED:
        return f"{prefix}{last}", True
    return f"{prefix}{last + 1}", False


def _send(client: JobSubmissionClient, id: str, entrypoint: str, folder: str, metadata: dict[str, str]) -> None:
    """Submit, again and again while the head has no agent; an id that is taken means that an earlier try arrived."""
    import requests

    for pause in (*AGENT_PAUSES, None):
        try:
            client.submit_job(submission_id=id, entrypoint=entrypoint, runtime_env={"working_dir": folder}, metadata=metadata)
            return
        except requests.exceptions.ReadTimeout:
            if pause is None:
                raise
        except RuntimeError as error:
            if f"{id} already exists" in str(error):
                return
            if pause is None or "No available agent" not in str(error):
                raise
        time.sleep(pause)


def follow(address: str, id: str, say: Callable[[str], None]) -> str:
    """Pass the job's log lines to `say` until it ends and return its status.

    A log tail that breaks is taken up again where it stopped. Ctrl-C leaves the job running and returns `RUNNING`.
    """
    url = _checked_url(address)
    client = _client(url)
    job = _find(client, url, id)
    again = f"`fournil logs {job.id} --address {url} --follow` follows it again, `fournil stop {job.id} --address {url}` stops it"
    try:
        return asyncio.run(_follow(client, url, job.id, say, again))
    except KeyboardInterrupt:
        say(f"left job {job.id} running; {again}")
        return RUNNING


async def _follow(client: JobSubmissionClient, url: str, id: str, say: Callable[[str], None], again: str) -> str:
    lines = LogLines(say)
    answered = time.monotonic()
    while True:
        lines.rewind()
        tail, ended, status = asyncio.create_task(_tail(client, id, lines)), False, None
        while not tail.done() and not ended and time.monotonic() - lines.moved < SILENT_SECONDS:
            await asyncio.wait({tail}, timeout=POLL_SECONDS)
            status = await asyncio.to_thread(_status_now, client, url, id)
            if status is not None:
                answered, ended = time.monotonic(), status in ENDED
            elif time.monotonic() - answered > LOST_SECONDS:
                await _end(tail)
                raise WorkError(f"{url} has not answered for {LOST_SECONDS:.0f} s; job {id} may still run there: {again}")
            if status == "PENDING":
                say(f"job {id} waits to start")
        await _end(tail)
        if ended and status is not None:
            lines.rewind()
            lines.add(await asyncio.to_thread(_whole_log, client, url, id))
            lines.close()
            return status
        await asyncio.sleep(REATTACH_SECONDS)


async def _tail(client: JobSubmissionClient, id: str, lines: LogLines) -> None:
    """Read the log from its beginning until the server closes the tail or the line breaks; either may come early."""
    import aiohttp

    with contextlib.suppress(RuntimeError, OSError, aiohttp.ClientError):
        async for chunk in client.tail_job_logs(id):
            lines.add(chunk)


async def _end(tail: asyncio.Task[None]) -> None:
    """Stop reading if that is still under way; what it could not handle is raised here."""
    tail.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tail


class LogLines:
    """Whole lines out of a log that is read in chunks, and from its beginning again after each break."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._shown = 0
        self._read = 0
        self._partial = ""
        self.moved = time.monotonic()

    def rewind(self) -> None:
        """What comes next is the log's beginning; characters that were passed on before are skipped."""
        self._read = 0
        self.moved = time.monotonic()

    def add(self, chunk: str) -> None:
        fresh = chunk[max(0, self._shown - self._read) :]
        self._read += len(chunk)
        self._shown = max(self._shown, self._read)
        if fresh:
            self.moved = time.monotonic()
        *whole, self._partial = (self._partial + fresh).split("\n")
        for line in whole:
            self.say(line)

    def close(self) -> None:
        if self._partial:
            self.say(self._partial)
        self._partial = ""


def _status_now(client: JobSubmissionClient, url: str, id: str) -> str | None:
    """The job's status, None while the head does not answer or cannot say."""
    try:
        with _plain_errors(url):
            return str(client.get_job_status(id))
    except (_NoAnswer, WorkError):
        return None


def _whole_log(client: JobSubmissionClient, url: str, id: str) -> str:
    with _plain_errors(url):
        return client.get_job_logs(id)


def job_status(address: str, id: str) -> str:
    """`PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED` or `STOPPED`."""
    return describe_job(address, id).status


def describe_job(address: str, id: str) -> Job:
    """The job with that submission id, or the newest one of the recipe with that name."""
    url = _checked_url(address)
    return _find(_client(url), url, id)


def list_jobs(address: str) -> list[Job]:
    """Fournil's jobs on the cluster, oldest first."""
    url = _checked_url(address)
    return _jobs(_client(url), url)


def job_logs(address: str, id: str) -> str:
    """Everything the job has printed so far."""
    url = _checked_url(address)
    client = _client(url)
    return _whole_log(client, url, _find(client, url, id).id)


def stop_job(address: str, id: str) -> bool:
    """Ask the job to end (finished artifacts stay); False when it had ended already."""
    url = _checked_url(address)
    client = _client(url)
    job = _find(client, url, id)
    if job.ended:
        return False
    with _plain_errors(url):
        return client.stop_job(job.id)


def check_job(job: Job, address: str) -> None:
    """Raise what a bake that ended like this would have raised here; nothing for a success or a job under way."""
    if job.status not in (FAILED, STOPPED):
        return
    if job.status == STOPPED:
        raise WorkError(f"job {job.id} was stopped; submit the same recipe again to go on")
    if job.exit_code == 127:
        raise WorkError(f"job {job.id}: the head finds no `python`; start Ray there with Fournil's environment first on PATH")
    if "No module named 'fournil" in job.message or "No module named fournil" in job.message:
        raise WorkError(f"job {job.id}: Fournil is not installed where the head's `python` looks; install it on every node")
    reason = f"the bake ended with exit code {job.exit_code}" if job.exit_code is not None else job.message.partition("\n")[0]
    error = RequestError if job.exit_code == RequestError.exit_code else WorkError
    raise error(f"job {job.id} failed: {reason}; see `fournil logs {job.id} --address {address}`")


def _find(client: JobSubmissionClient, url: str, id: str) -> Job:
    jobs = _jobs(client, url)
    for job in reversed(jobs):
        if id in (job.id, job.recipe):
            return job
    known = ", ".join(job.id for job in jobs[-5:]) or "it has none of Fournil's"
    raise RequestError(f"no job or run {id!r} on {url}; known jobs: {known}")


def _jobs(client: JobSubmissionClient, url: str) -> list[Job]:
    with _plain_errors(url):
        found = [job for job in client.list_jobs() if (job.submission_id or "").startswith("fournil-")]
    return [_job(details) for details in sorted(found, key=lambda job: (job.start_time or 0, job.submission_id or ""))]


def _job(details: JobDetails) -> Job:
    metadata: dict[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id or "",
        recipe=metadata.get("recipe", ""),
        storage=metadata.get("storage", ""),
        status=str(details.status),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started=_moment(details.start_time),
        finished=_moment(details.end_time),
    )


def _moment(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None


def _checked_url(address: str) -> str:
    """`http://HEAD:8265` from what the user gave; anything but an HTTP address is a `RequestError`."""
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise RequestError(f"{address} is not a job address; give the head's dashboard, such as http://HEAD:8265")
    return url


def _client(url: str) -> JobSubmissionClient:
    """Ray's job client for this address, with time limits on its requests and its chatter off."""
    from ray.job_submission import JobSubmissionClient

    class TimedClient(JobSubmissionClient):
        """Ray's client waits for ever on a head that went away."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            answer = ANSWER_SECONDS if method == "GET" else SUBMIT_ANSWER_SECONDS
            return super()._do_request(method, endpoint, timeout=(CONNECT_SECONDS, answer), **options)

    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    with _plain_errors(url), _without_ray_address():
        return TimedClient(url)


@contextlib.contextmanager
def _without_ray_address() -> Iterator[None]:
    """Ray lets RAY_ADDRESS and RAY_API_SERVER_ADDRESS win over an address given in so many words; here it must not."""
    hidden = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _NoAnswer(RequestError):
    """Nobody answered, which may pass while a job is followed."""


@contextlib.contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line that says what to do."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise RequestError(_token_advice(url, str(error))) from None
    except (requests.exceptions.HTTPError, KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{url} answers, but not like a Ray dashboard ({error!r}); give the head's, such as http://HEAD:8265") from None
    except (ConnectionError, requests.exceptions.RequestException):
        raise _NoAnswer(f"no Ray cluster answers at {url}; is its head up (`ray start --head`) and its dashboard reachable?") from None
    except RuntimeError as error:
        if "Version check returned 404" in str(error):
            raise RequestError(f"{url} answers, but not like a Ray dashboard; give the head's, such as http://HEAD:8265") from None
        raise WorkError(f"{url} did not do it: {_last_line(str(error))}") from None


def _token_advice(url: str, reason: str) -> str:
    """Why the cluster let us not in, and where the token it wants is read from. Never the token itself."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return f"{url} wants a token: set RAY_AUTH_MODE=token; the token is read from {TOKEN_PLACES}"
    if "Forbidden" in reason:
        return f"{url} refuses this token (RAY_AUTH_MODE=token): use the head's; it is read from {TOKEN_PLACES}"
    return f"RAY_AUTH_MODE=token is set and no token is found: put the head's into {TOKEN_PLACES}"


def _last_line(text: str) -> str:
    """The line that says what happened, out of a message that may hold a whole traceback."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip(" .")]
    return lines[-1].rstrip(".") if lines else "no reason given"
