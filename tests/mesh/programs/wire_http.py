"""HTTP/1.1, WebSocket frames and the least of HTTP/2, with the standard library only: what the test programs speak.

Known to nothing else; both ends of the tests use it, so what it gets wrong a sidecar between them must get right.
"""

import asyncio
import base64
import json
import os
import struct
from typing import NamedTuple

LIMIT = 1 << 20
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


class Message(NamedTuple):
    """A request or a response: its first line, lower-case headers, its body."""

    first: str
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first.split(" ", 2)[1])

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with it."""
        return self.headers.get("connection", "").lower() == "close" or self.first.startswith("HTTP/1.0")


async def read_message(reader: asyncio.StreamReader, *, has_body: bool = True) -> Message | None:
    """The next message; None where the connection ended between two. Raises EOFError inside one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise EOFError("the connection ended inside a head") from error
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif has_body and "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    return Message(first, headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        found.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(found)


def request(method: str, path: str, host: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request's bytes; `content-length` where there is a body."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def response(status: int, value: object, headers: dict[str, str] | None = None) -> bytes:
    """A response of JSON."""
    body = json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} x", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


# --- WebSocket (RFC 6455), short text frames ---------------------------------------------------------------------------


def frame(text: str, *, masked: bool) -> bytes:
    """One text frame of at most 125 bytes."""
    body = text.encode()
    if not masked:
        return bytes((0x81, len(body))) + body
    mask = os.urandom(4)
    return bytes((0x81, 0x80 | len(body))) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))


async def read_frame(reader: asyncio.StreamReader) -> str:
    """The text of the next frame."""
    _, size = await reader.readexactly(2)
    mask = await reader.readexactly(4) if size & 0x80 else b"\0\0\0\0"
    body = await reader.readexactly(size & 0x7F)
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)).decode()


def websocket_key() -> str:
    """A fresh key of a handshake."""
    return base64.b64encode(os.urandom(16)).decode()


# --- HTTP/2 with prior knowledge (RFC 9113), one request a connection --------------------------------------------------


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field without indexing and without Huffman (RFC 7541 §6.2.2); both shorter than 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


async def h2_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> bytes:
    """GET over HTTP/2; the body. Raises EOFError where the other end does not speak it."""
    fields = (":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)
    block = b"".join(_literal(name, value) for name, value in fields)
    writer.write(H2_PREFACE + h2_frame(_SETTINGS, 0, 0) + h2_frame(_HEADERS, _END_STREAM | _END_HEADERS, 1, block))
    body = b""
    while True:
        kind, flags, stream, payload = await _h2_read(reader, writer)
        if kind == _DATA and stream == 1:
            body += payload
        if kind in (_RESET, _GOAWAY):
            raise EOFError(f"HTTP/2 frame {kind}: {payload[:80]!r}")
        if stream == 1 and flags & _END_STREAM and kind in (_DATA, _HEADERS):
            return body


async def h2_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
    """Serve one connection whose preface is still unread: every request gets 200 and `body`."""
    preface = await reader.readexactly(len(H2_PREFACE))
    if preface != H2_PREFACE:
        writer.write(response(400, {"error": "not HTTP/2"}, {"connection": "close"}))
        return
    writer.write(h2_frame(_SETTINGS, 0, 0))
    while True:
        kind, flags, stream, _ = await _h2_read(reader, writer)
        if stream and kind in (_HEADERS, _DATA) and flags & _END_STREAM:
            # 0x88: `:status: 200` of the static table
            writer.write(h2_frame(_HEADERS, _END_HEADERS, stream, b"\x88"))
            writer.write(h2_frame(_DATA, _END_STREAM, stream, body))


async def _h2_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, int, int, bytes]:
    try:
        head = await reader.readexactly(9)
        size = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise EOFError("the connection ended") from error
    if kind == _SETTINGS and not flags & _ACK:
        writer.write(h2_frame(_SETTINGS, _ACK, 0))
    if kind == _PING and not flags & _ACK:
        writer.write(h2_frame(_PING, _ACK, 0, payload))
    return kind, flags, stream & 0x7FFFFFFF, payload
