"""Bookinfo's processes on loopback, without a mesh: started, asked, stopped."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

PATIENCE = 20.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Process:
    """One service as its container would start it; `ports` fills as it says where it listens."""

    def __init__(self, module: str, listens: int = 1, **env: str) -> None:
        # Nothing of the caller's shell may steer a service: a proxy there would catch loopback requests.
        outer = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "PYTHONPATH"}}
        here = {"BIND_ADDRESS": "127.0.0.1", "PORT": "0", "GRPC_PORT": "0", "POD_NAME": f"{module}-pod"}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", f"tulle.examples.bookinfo.{module}"],
            env={**outer, **here, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.ports: dict[str, int] = {}
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.until(lambda: len(self.ports) >= listens, f"{module} to listen")

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self.ports.update((kind, int(port)) for kind, port in re.findall(r"(http|grpc)=(\d+)", line))
                self._changed.notify_all()

    def until(self, holds: Callable[[], object], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(holds()), PATIENCE), f"waited for {what}: {self.lines}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def get(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        return get(self.ports["http"], path, method, body, **headers)

    def terminate(self) -> tuple[int, float]:
        """SIGTERM; the exit code and the seconds it took. All it said is in `lines` then."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        code, took = self.popen.wait(PATIENCE), time.monotonic() - began
        self._reader.join(PATIENCE)
        return code, took

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self._reader.join(PATIENCE)
        assert self.popen.stdout
        self.popen.stdout.close()


@contextmanager
def running(module: str, listens: int = 1, **env: str) -> Iterator[Process]:
    process = Process(module, listens, **env)
    try:
        yield process
    finally:
        process.close()


def get(port: int, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; `end_user="x"` becomes `end-user: x`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read().decode())
    finally:
        connection.close()


Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def neighbour(reply: Reply) -> Iterator[str]:
    """A neighbour played by the test: its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply(self)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(status: int, body: bytes, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply
