"""A server on this machine that stands in for one of a trainer's."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Answers(ThreadingHTTPServer):
    """Answers JSON with JSON."""

    request_queue_size = 1024
    """Connections that are not accepted yet."""
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, asked: dict[str, Any]) -> Any:
        """The answer to a request's body, which is empty for a GET."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Answers

    def do_GET(self) -> None:
        self._say({})

    def do_POST(self) -> None:
        self._say(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _say(self, asked: dict[str, Any]) -> None:
        content = json.dumps(self.server.answer(urlsplit(self.path).path, asked)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


def start(server: Answers) -> None:
    """Have the server answer until this process ends."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
