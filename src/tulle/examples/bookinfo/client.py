"""A keep-alive HTTP/1.1 client for plain names: resolves, connects, asks, remembers the connection.

Knows `http_proxy` (where a mesh cannot capture traffic it is told so by environment) and retries once when a kept
connection turns out to be dead (RFC 9110 §9.2.2). Anything more, a mesh does.
"""

import os
import socket
import threading
from collections.abc import Iterable
from typing import NamedTuple

from .http1 import ClosedError, Headers, Link, ProtocolError, message, wants_close

Fields = Iterable[tuple[str, str]]


class Reply(NamedTuple):
    """A response, or why there is none: then `status` is 0 and `body` says it."""

    status: int
    fields: Headers
    body: bytes


class Client:
    """Asks one origin, such as `http://details:9080`; safe to share between threads."""

    def __init__(self, origin: str, timeout: float = 5.0) -> None:
        self.host, self.port = address(origin)
        self._authority = f"{self.host}:{self.port}"
        self._timeout = timeout
        self._proxy = _proxy(self.host)
        self._kept: list[Link] = []
        self._lock = threading.Lock()

    def get(self, path: str, fields: Fields = ()) -> Reply:
        """GET `path`; never raises for what a network does."""
        request = self._request(path, fields)
        try:
            return self._asked(request)
        except (OSError, ClosedError, ProtocolError) as error:
            return Reply(0, {}, f"{type(error).__name__}: {error}".encode())

    def upgraded(self, path: str, fields: Fields) -> tuple[Reply, Link | None]:
        """GET `path` on a connection of its own; the connection is handed over when the answer is 101."""
        link: Link | None = None
        try:
            link = self._connected()
            link.send(self._request(path, fields))
            reply = _reply(link)
            if reply.status == 101:
                return reply, link
        except (OSError, ClosedError, ProtocolError) as error:
            reply = Reply(0, {}, f"{type(error).__name__}: {error}".encode())
        if link:
            link.close()
        return reply, None

    def _request(self, path: str, fields: Fields) -> bytes:
        target = f"http://{self._authority}{path}" if self._proxy else path
        return message(f"GET {target} HTTP/1.1", (("host", self._authority), *fields))

    def _asked(self, request: bytes) -> Reply:
        with self._lock:
            link = self._kept.pop() if self._kept else None
        if link:
            try:
                return self._exchange(link, request)
            except (ConnectionError, ClosedError) as error:
                if isinstance(error, ClosedError) and error.partial:
                    raise
                # ClosedError while it was idle. Every request here is a GET: asking again is safe.
        return self._exchange(self._connected(), request)

    def _exchange(self, link: Link, request: bytes) -> Reply:
        try:
            link.send(request)
            reply = _reply(link)
        except BaseException:
            link.close()
            raise
        if reply.fields.get("connection", "").lower() == "close":
            link.close()
        else:
            with self._lock:
                self._kept.append(link)
        return reply

    def _connected(self) -> Link:
        host, port = self._proxy or (self.host, self.port)
        return Link(socket.create_connection((host, port), timeout=self._timeout))


def address(origin: str, default: int = 80) -> tuple[str, int]:
    """`http://details:9080` or `details:9080` -> ("details", 9080)."""
    place = origin.rpartition("://")[2].rstrip("/")
    host, colon, port = place.rpartition(":")
    return (host, int(port)) if colon else (place, default)


def _proxy(host: str) -> tuple[str, int] | None:
    proxy = os.environ.get("http_proxy", "")
    exempt = os.environ.get("no_proxy", "").split(",")
    if not proxy or any(host == name or (name and host.endswith("." + name.lstrip("."))) for name in exempt):
        return None
    return address(proxy)


def _reply(link: Link) -> Reply:
    for _ in range(8):
        start, fields = link.head()
        try:
            status = int(start.split(" ", 2)[1])
        except (IndexError, ValueError):
            raise ProtocolError(502, f"not a status line: {start[:80]!r}") from None
        if status >= 200 or status == 101:
            break
    else:
        raise ProtocolError(502, "only interim responses")
    if status in {101, 204, 304}:
        return Reply(status, fields, b"")
    announced = "content-length" in fields or "transfer-encoding" in fields
    body = link.body(fields, until_close=not announced)
    if not announced or wants_close(start, fields):
        fields["connection"] = "close"
    return Reply(status, fields, body)
