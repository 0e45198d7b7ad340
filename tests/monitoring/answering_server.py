"""An HTTP server that stands where InfluxDB is expected, and answers writes as it is told: a proxy's login page, an outage."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORED = (204, "text/plain", "")


@dataclass
class AnsweringServer:
    """What it answers, and what it was asked."""

    url: str
    """Its address."""
    answer: Callable[[], tuple[int, str, str]] = lambda: STORED
    """Makes status, content type and body of the next answer."""
    paths: list[str] = field(default_factory=list)
    """Targets of the requests, which are whole addresses where it is asked as a proxy."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Headers of the requests."""
    lines: list[str] = field(default_factory=list)
    """Lines of the requests that it answered with 204."""


@contextmanager
def answering() -> Iterator[AnsweringServer]:
    """Run one on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, text = server.answer()
            server.paths.append(self.path)
            server.headers.append({name.title(): value for name, value in self.headers.items()})
            if status == 204:
                data = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                server.lines += data.decode().splitlines()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = AnsweringServer(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
