"""One HTTP request over a Unix socket, without an event loop and without a client library (which takes 0.3 s to import).

Adapter. Bodies are bounded; every failure is an `OSError`.
"""

import http.client
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

BODY_LIMIT = 256 * 1024 * 1024
"""Bytes; a sidecar of a large mesh dumps some tens of megabytes."""


class Answer(NamedTuple):
    """A response."""

    status: int
    body: bytes

    @property
    def is_error(self) -> bool:
        """Whether the other side refused or failed."""
        return self.status >= 400

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    socket_path: Path,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: bytes = b"",
    timeout_s: float = 10.0,
) -> Answer:
    """One request. Raises OSError (`TimeoutError` for one that is late)."""
    target = f"{path}?{urlencode(query)}" if query else path
    connection = _Connection(socket_path, timeout_s)
    try:
        headers = {"content-type": "application/json"} if body else {}
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(BODY_LIMIT))
    except http.client.HTTPException as error:
        raise ConnectionError(f"not an HTTP answer: {type(error).__name__} {error}".rstrip()) from error
    finally:
        connection.close()
