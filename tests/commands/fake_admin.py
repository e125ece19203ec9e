"""A stand-in for the admin port: remembers what it was asked and answers what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeAdmin:
    """`answer` is (status, headers, body); `asked` holds (method, path, body, token) of every request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, str]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
        self.url = ""

    def answers(self, body: object, status: int = 200, **headers: str) -> None:
        self.answer = (status, headers, json.dumps(body).encode())


@contextmanager
def fake_admin() -> Iterator[FakeAdmin]:
    """One that listens on a free port of 127.0.0.1."""
    admin = FakeAdmin()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            token = self.headers.get("authorization", "")
            admin.asked.append((self.command, self.path, json.loads(data) if data else None, token))
            status, headers, body = admin.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet: the tests look at `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    admin.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield admin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
