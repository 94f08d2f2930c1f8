"""The server's end of a WebSocket (RFC 6455): handshake, text frames, ping and close. No extensions, no binary.

Frames only; what is said is the caller's. The handshake's 101 is written by `server`.
"""

import base64
import hashlib
import select
import threading
import time
from collections.abc import Callable

from .http1 import ClosedError, Link
from .server import Request, Response, Upgrade

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_LONGEST = 32 * 1024
_GOING_AWAY, _PROTOCOL_ERROR, _UNSUPPORTED, _TOO_BIG = 1001, 1002, 1003, 1009


class _FrameError(Exception):
    """The peer broke the framing; `code` is the close code of RFC 6455 §7.4.1."""

    def __init__(self, code: int) -> None:
        super().__init__(f"close code {code}")
        self.code = code


def accept(
    request: Request, tick: Callable[[], str], reply: Callable[[str], str], interval: float
) -> Upgrade | Response:
    """Upgrade `request`: send `tick()` every `interval` seconds and `reply(text)` for each text received."""
    if "websocket" not in request.fields.get("upgrade", "").lower():
        return Response(426, b"speak WebSocket here\n", "text/plain", (("upgrade", "websocket"),))
    key = request.fields.get("sec-websocket-key", "")
    if request.method != "GET" or not key or request.fields.get("sec-websocket-version") != "13":
        return Response(400, b"not a WebSocket 13 handshake\n", "text/plain", (("sec-websocket-version", "13"),))
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    fields = (
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", base64.b64encode(digest).decode()),
    )
    return Upgrade(fields, lambda link, stopping: _talk(link, stopping, tick, reply, interval))


def _talk(
    link: Link, stopping: threading.Event, tick: Callable[[], str], reply: Callable[[str], str], interval: float
) -> None:
    poll = select.poll()
    poll.register(link.sock, select.POLLIN)
    due = time.monotonic()
    code = _GOING_AWAY
    while not stopping.is_set():
        if time.monotonic() >= due:
            link.send(_frame(_TEXT, tick().encode()))
            due += interval
        # Short waits: the drain of the process is noticed by looking.
        wait = max(0.0, min(0.1, due - time.monotonic()))
        if not (link.ahead or poll.poll(int(wait * 1000) + 1)):
            continue
        try:
            kind, payload = _received(link)
            if kind == _CLOSE:
                link.send(_frame(_CLOSE, payload[:2]))
                return
            if kind == _PING:
                link.send(_frame(_PONG, payload))
            elif kind == _TEXT:
                link.send(_frame(_TEXT, reply(payload.decode()).encode()))
        except ClosedError:
            return
        except (_FrameError, UnicodeDecodeError) as error:
            code = error.code if isinstance(error, _FrameError) else 1007
            break
    link.send(_frame(_CLOSE, code.to_bytes(2, "big")))


def _frame(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | kind, size)) + payload
    return bytes((0x80 | kind, 126)) + size.to_bytes(2, "big") + payload


def _received(link: Link) -> tuple[int, bytes]:
    first, second = link.exactly(2)
    if not first & 0x80 or first & 0x0F == 0:
        raise _FrameError(_UNSUPPORTED)  # a fragment: nothing said here is long enough for one
    if first & 0x70 or not second & 0x80:
        raise _FrameError(_PROTOCOL_ERROR)  # a reserved bit, or a client that does not mask (§5.1)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(link.exactly(2), "big")
    elif size == 127:
        size = int.from_bytes(link.exactly(8), "big")
    if size > _LONGEST:
        raise _FrameError(_TOO_BIG)
    mask = link.exactly(4)
    masked = link.exactly(size)
    kind = first & 0x0F
    if kind not in {_TEXT, _CLOSE, _PING, _PONG}:
        raise _FrameError(_UNSUPPORTED)
    return kind, bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
