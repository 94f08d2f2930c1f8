"""One JSON request over a Unix socket without an event loop, for commands.

Apart from `asking.py`, because the standard library's client takes longer to import than a supervisor has at its start.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

_BODY_LIMIT: Final = 64 * 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_now(path: Path, method: str, target: str, given: Any = None, timeout: float = 10.0) -> tuple[int, Any]:
    """One JSON request without an event loop, for commands: (status, JSON). Raises `OSError`."""
    connection = _UnixConnection(str(path), timeout)
    try:
        body = None if given is None else json.dumps(given).encode()
        connection.request(method, target, body)
        response = connection.getresponse()
        content = response.read(_BODY_LIMIT)
    except http.client.HTTPException as error:
        raise ConnectionError(f"not an HTTP response: {error}") from error
    finally:
        connection.close()
    return response.status, json.loads(content) if content else None
