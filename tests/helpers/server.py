"""An HTTP server on this machine, which can cut its answers short or refuse."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """The answers of the server, and the requests that it received.

    Attributes:
        url: its address, without a slash at the end.
        files: content by path, such as "/folder/file".
        content: of every other path; None for 404.
        ranges: whether it supports Range requests.
        status: of every answer, unless it is 200.
        cut_after: bytes after which every answer is cut.
        hub: whether it sends the headers of Hugging Face's hub.
        paths: of the requests.
        requests: their Range headers.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None
    ranges: bool = True
    status: int = 200
    cut_after: int | None = None
    hub: bool = False
    paths: list[str] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    state: Server

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, asked = self.state, self.headers.get("Range")
        server.paths.append(self.path)
        server.requests.append(asked)
        content = server.files.get(self.path, server.content)
        if content is None or server.status != 200:
            self._answer(404 if server.status == 200 else server.status, b"")
            return
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(match.group(1)) if match and server.ranges else 0
        if start >= len(content) > 0:
            self._answer(416, b"")
        else:
            self._answer(206 if start else 200, content[start:])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.state.hub:
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("ETag", f'"{len(body):040}"')
            if not body:
                self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: self.state.cut_after])


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server while the block runs."""
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
