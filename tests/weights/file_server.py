"""A web server on this machine whose files and faults a test decides."""

import http.server
import re
import threading
import time
from collections.abc import Callable


class FileServer:
    """Serves `files` on 127.0.0.1, as a context.

    Attributes:
      files: path ("/x.pth") to content.
      ranges: whether it knows ranges.
      cut: bytes after which it closes a connection; None: never.
      trickle: seconds between single bytes; 0: all at once.
      stall: seconds for which it stays silent after `cut` bytes, in place of closing.
      status: an answer for everything, in place of a file.
      wrong_range: whether it sends another part than asked for.
      length: the Content-Length that it claims; None: the right one.
      each: called at every request with its number.
      requests: the Range of every request, "" for none.
    """

    def __init__(self, **files: bytes):
        self.files = {f"/{name}": content for name, content in files.items()}
        self.ranges, self.cut, self.stall, self.status = True, None, 0.0, 0
        self.wrong_range, self.length, self.trickle = False, None, 0.0
        self.each: Callable[[int], None] = lambda number: None
        self.requests: list[str] = []
        self._ended = threading.Event()

    def __enter__(self) -> "FileServer":
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def _handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_) -> None:
                pass

            def do_GET(self) -> None:
                given = self.headers.get("Range", "")
                server.requests.append(given)
                server.each(len(server.requests))
                content = server.files.get(self.path)
                if server.status or content is None:
                    self.send_error(server.status or 404)
                    return
                start = int(re.findall(r"\d+", given)[0]) if given and server.ranges else 0
                if start and start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if given and server.ranges else 200)
                if given and server.ranges:
                    first = start + server.wrong_range
                    self.send_header(
                        "Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}"
                    )
                part = content[start:]
                self.send_header("Content-Length", str(server.length or len(part)))
                self.end_headers()
                if server.trickle:
                    for byte in part:
                        if server._ended.wait(server.trickle):
                            return
                        self.wfile.write(bytes([byte]))
                self.wfile.write(part if server.cut is None else part[: server.cut])
                if server.cut is not None and server.stall:
                    self.wfile.flush()
                    until = time.monotonic() + server.stall
                    while time.monotonic() < until and not server._ended.wait(0.01):
                        pass

        return Handler
