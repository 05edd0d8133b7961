"""A client that reaches a cluster's head over a bad line, run on one of the hosts: `python -m tests.cluster.faults HEAD:8265`.

The line refuses the first submissions as a head without an agent does, and loses every log tail, each a little later
than the one before: in turns it is cut, or nothing comes any more. Prints what happened as JSON.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading

from cluster import jobs
from cluster.errors import FournilError

REFUSAL = b"No available agent to submit job, please try again later."
TAIL_BYTES = 400
COUNTED = 90
SILENT_SECONDS = 2.0


class BadLine:
    """A relay to `head` on a port of its own."""

    def __init__(self, head: tuple[str, int], refusals: int) -> None:
        self.head = head
        self.refusals = refusals
        self.refused = 0
        self.cuts = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self.server.accept()
            threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            request = _read_request(client)
            if request.startswith(b"POST /api/jobs/ ") and self.refused < self.refusals:
                self.refused += 1
                client.sendall(b"HTTP/1.1 500 Error\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(REFUSAL), REFUSAL))
                return
            with socket.create_connection(self.head) as head:
                head.sendall(request)
                limit = TAIL_BYTES * (self.cuts + 1) if b"/logs/tail" in request.partition(b"\r\n")[0] else None
                threading.Thread(target=_pour, args=(client, head, None), daemon=True).start()
                if _pour(head, client, limit):
                    self.cuts += 1
                    if self.cuts % 2:
                        client.shutdown(socket.SHUT_RDWR)
                    else:
                        threading.Event().wait()


def _read_request(client: socket.socket) -> bytes:
    """Head and body of an HTTP request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < (int(lengths[0]) if lengths else 0):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def _pour(source: socket.socket, target: socket.socket, limit: int | None) -> bool:
    """Pass bytes on until the source ends; True when `limit` bytes were reached before."""
    passed = 0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
            passed += len(data)
            if limit is not None and passed >= limit:
                return True
        target.shutdown(socket.SHUT_WR)
    return False


def main(head: str) -> None:
    from ray.job_submission import JobSubmissionClient

    host, _, port = head.partition(":")
    line = BadLine((host, int(port)), refusals=2)
    jobs.SILENT_SECONDS = SILENT_SECONDS
    jobs.POLL_SECONDS = SILENT_SECONDS / 2
    counting = f"import time\nfor n in range({COUNTED}):\n    print('ligne é', n, flush=True)\n    time.sleep(0.1)"
    JobSubmissionClient(f"http://{head}").submit_job(
        submission_id="fournil-counting-1", entrypoint=f'python -c "{counting}"', metadata={"recipe": "counting"}
    )
    counted: list[str] = []
    status = jobs.follow(line.url, "counting", counted.append)
    wrong = jobs.submit(line.url, "name: wrong\n", "wrong", "/nowhere")
    said: list[str] = []
    wrong_status = jobs.follow(line.url, wrong, said.append)
    error = None
    try:
        jobs.check_job(jobs.describe_job(line.url, wrong), line.url)
    except FournilError as raised:
        error = [raised.exit_code, str(raised)]
    result = {
        "counted": counted,
        "status": status,
        "cuts": line.cuts,
        "refused": line.refused,
        "wrong": wrong,
        "wrong_status": wrong_status,
        "said": said,
        "error": error,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
