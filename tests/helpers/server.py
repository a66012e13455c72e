"""A real HTTP server on this machine, which can cut its answers short or refuse."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What the server answers, and the requests that it got.

    Attributes:
        url: its address, without a slash at the end.
        files: content by path, such as "/folder/file".
        content: of every other path; None for 404.
        headers: further ones of every answer.
        ranges: whether it can begin in the middle.
        status: of every answer, unless it is 200.
        cut_after: bytes after which every answer is cut.
        paths: of the requests.
        requests: their Range headers.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
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
            wanted = self.headers.get("Range")
            server.paths.append(self.path)
            server.requests.append(wanted)
            content = server.files.get(self.path, server.content)
            match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
            start = int(match.group(1)) if match and server.ranges else 0
            status = 206 if start else 200
            if server.status != 200 or content is None:
                status = 404 if server.status == 200 else server.status
            elif start >= len(content) > 0:
                status = 416
            body = (content or b"")[start:] if status < 400 else b""
            self.send_response(status)
            headers = {"ETag": f'"{len(body):040}"', "Content-Length": str(len(body))}
            for name, value in {**headers, **server.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body if server.cut_after is None else body[: server.cut_after])

        do_HEAD = do_GET

    return Handler


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server during the block."""
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
