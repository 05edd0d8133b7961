"""A data set hub on the loopback: the two calls that `huggingface_hub` makes to list and download files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@contextmanager
def serve_hub(dataset: str, files: dict[str, bytes]) -> Iterator[str]:
    """The address of a hub with one data set."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            prefix = f"/datasets/{dataset}/resolve/{COMMIT}/"
            headers: dict[str, str] = {}
            if path.startswith(f"/api/datasets/{dataset}"):
                listed = {"id": dataset, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                status, data = 200, json.dumps(listed).encode()
                headers["Content-Type"] = "application/json"
            elif path.startswith(prefix) and path[len(prefix) :] in files:
                status, data = 200, files[path[len(prefix) :]]
                headers |= {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            else:
                status, data = 404, b""
                headers["X-Error-Code"] = "RepoNotFound"
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
