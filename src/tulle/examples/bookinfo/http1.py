"""HTTP/1.1 on a blocking socket: message heads, bodies and keep-alive (RFC 9112), for both ends.

Written out because the standard library's modules cost 40 ms and 10 MB at start, and nine of these processes start
together on a laptop. Knows nothing of handlers (`server`), of pools (`client`) or of frames (`websocket`).
"""

import socket
from collections.abc import Iterable
from typing import NamedTuple

Headers = dict[str, str]
"""Lower-case name -> value; repeated fields are joined by a comma (RFC 9110 §5.3)."""

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 1024 * 1024

REASONS = {
    101: "Switching Protocols",
    200: "OK",
    204: "No Content",
    303: "See Other",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class ProtocolError(Exception):
    """The peer broke HTTP/1.1; `status` is what a server answers before it closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ClosedError(Exception):
    """The peer closed before a whole message arrived; `partial` tells whether any byte of it did."""

    def __init__(self, *, partial: bool) -> None:
        super().__init__("the peer closed the connection")
        self.partial = partial


class Head(NamedTuple):
    """The start line and the fields of one message."""

    start: str
    fields: Headers


class Link:
    """One TCP connection and the bytes read ahead of what was asked for."""

    __slots__ = ("_ahead", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._ahead = b""

    def wait(self) -> bool:
        """Block until the next message begins; False when the peer closed instead."""
        return bool(self._ahead) or self._more()

    def head(self) -> Head:
        """Read the next message head; raises `ClosedError` or `ProtocolError` (431, 400)."""
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            if len(self._ahead) > HEAD_LIMIT:
                raise ProtocolError(431, f"the head is longer than {HEAD_LIMIT} bytes")
            if not self._more():
                raise ClosedError(partial=bool(self._ahead))
        raw, self._ahead = self._ahead[:end], self._ahead[end + 4 :]
        start, *lines = raw.decode("latin-1").split("\r\n")
        return Head(start, _fields(lines))

    def body(self, fields: Headers, *, until_close: bool = False) -> bytes:
        """Read the body those fields announce; `until_close` for responses that announce nothing (RFC 9112 §6.3)."""
        coding = fields.get("transfer-encoding", "").lower()
        length = fields.get("content-length")
        if coding and length is not None:
            raise ProtocolError(400, "both Transfer-Encoding and Content-Length")
        if coding == "chunked":
            return self._chunks()
        if coding:
            raise ProtocolError(400, f"transfer coding {coding!r} is not known here")
        if length is not None:
            if not length.isdecimal():
                raise ProtocolError(400, f"Content-Length is {length!r}")
            return self.exactly(_bounded(int(length)))
        if not until_close:
            return b""
        while self._more():
            _bounded(len(self._ahead))
        return self.taken()

    def exactly(self, count: int) -> bytes:
        """Read `count` bytes; raises `ClosedError`."""
        while len(self._ahead) < count:
            if not self._more():
                raise ClosedError(partial=True)
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def taken(self) -> bytes:
        """Hand over what was read ahead, for a protocol that continues on the bare socket."""
        taken, self._ahead = self._ahead, b""
        return taken

    @property
    def ahead(self) -> bool:
        """Whether bytes wait here that a poll of the socket would not show."""
        return bool(self._ahead)

    def send(self, payload: bytes) -> None:
        """Write everything or raise OSError."""
        self.sock.sendall(payload)

    def close(self) -> None:
        """Close for good."""
        self.sock.close()

    def _more(self) -> bool:
        received = self.sock.recv(65536)
        self._ahead += received
        return bool(received)

    def _line(self) -> bytes:
        while (end := self._ahead.find(b"\r\n")) < 0:
            if len(self._ahead) > HEAD_LIMIT:
                raise ProtocolError(400, "a line of the body has no end")
            if not self._more():
                raise ClosedError(partial=True)
        line, self._ahead = self._ahead[:end], self._ahead[end + 2 :]
        return line

    def _chunks(self) -> bytes:
        whole = b""
        while True:
            size = self._line().partition(b";")[0].strip()
            try:
                count = int(size, 16)
            except ValueError:
                raise ProtocolError(400, f"chunk size {size!r}") from None
            _bounded(len(whole) + count)
            if not count:
                break
            whole += self.exactly(count)
            self._line()
        for _ in range(64):
            # Trailers carry nothing these services read.
            if not self._line():
                return whole
        raise ProtocolError(400, "too many trailers")


def message(start: str, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """Serialise one message; the caller has set Content-Length. Raises ValueError for a line break inside a line."""
    lines = [start, *(f"{name}: {value}" for name, value in fields)]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a start line or header field")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def wants_close(start: str, fields: Headers) -> bool:
    """Whether this message ends its connection (RFC 9112 §9.3)."""
    options = fields.get("connection", "").lower()
    return "close" in options or ("HTTP/1.0" in start and "keep-alive" not in options)


def _fields(lines: list[str]) -> Headers:
    fields: Headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError(400, f"not a header field: {line[:80]!r}")
        name, value = name.lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _bounded(count: int) -> int:
    if not 0 <= count <= BODY_LIMIT:
        raise ProtocolError(413, f"the body is longer than {BODY_LIMIT} bytes")
    return count
