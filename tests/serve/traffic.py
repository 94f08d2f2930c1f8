"""Something behind a gateway on loopback, and a client that counts what fails."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Not to the terminal."""


@contextmanager
def application() -> Iterator[int]:
    """An HTTP server; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Load:
    """Requests one after the other on one connection, and every tenth on a new one, until stopped."""

    def __init__(self, port: int, host: str) -> None:
        self.count = 0
        self.failed: list[str] = []
        self._port, self._host = port, host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            self.count += 1
            if self.count % 10 == 0:
                connection.close()
                connection = self._connect()
            try:
                connection.request("GET", "/", headers={"Host": self._host})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or body != b"ok":
                    self.failed.append(f"{time.monotonic():.3f} {answer.status} {body[:80]!r}")
            except OSError as error:
                self.failed.append(f"{time.monotonic():.3f} {error!r}")
                connection.close()
                connection = self._connect()
            time.sleep(0.001)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
