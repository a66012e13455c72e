"""A real server on this machine, which can cut its answers short or refuse."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What the server sends, and what it was asked for.

    Attributes:
        url: its address, without a slash at the end.
        files: content by path, such as "/folder/file".
        content: of every other path; None for 404.
        ranges: whether it can begin in the middle.
        status: of every answer, unless it is 200.
        cut_after: bytes after which every answer is cut.
        paths: of the requests.
        requests: their Range headers.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None
    ranges: bool = True
    status: int = 200
    cut_after: int | None = None
    paths: list[str] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.paths.append(self.path)
            server.requests.append(asked)
            content = server.files.get(self.path, server.content)
            if content is None or server.status != 200:
                self.send_error(404 if server.status == 200 else server.status)
                return
            match = re.fullmatch(r"bytes=(\d+)-", asked or "")
            start = int(match.group(1)) if match and server.ranges else 0
            if start >= len(content) > 0:
                self.send_error(416)
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if server.cut_after is None else body[: server.cut_after])

    return Handler


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server while the block runs."""
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
