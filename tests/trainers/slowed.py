"""A server as seen behind a slow one: answers come later, by the number of their pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

MOST_WAITING = 512
"""Connections that are not accepted yet."""


@contextmanager
def slowed(url: str, pair_seconds: float) -> Iterator[str]:
    """The address of a server that forwards ``POST /score``, for the length of the block.

    Args:
        url: of the server that answers.
        pair_seconds: what each pair of a request adds to the time of its answer.
    """
    server = _Slowed(url, pair_seconds)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Slowed(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MOST_WAITING

    def __init__(self, url: str, pair_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarded)
        self.url = url
        self.pair_seconds = pair_seconds


class _Forwarded(BaseHTTPRequestHandler):
    server: _Slowed

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.pair_seconds * len(json.loads(content)["pairs"]))
        headers = {name: self.headers[name] for name in ("Content-Type", "X-Request-Id")}
        answer = httpx.post(
            self.server.url + self.path, content=content, headers=headers, timeout=None
        )
        self.send_response(answer.status_code)
        for name in ("Content-Type", "X-Request-Id"):
            self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_request(self, *values: object) -> None:
        pass
