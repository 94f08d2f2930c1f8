"""Netlink framing: attributes, messages, acknowledgements.

Written out here rather than taken from a library because PID 1 of the fabric must import in milliseconds and fork
without threads. Knows neither links (`links`) nor rules (`nft`); see RFC 3549 and linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

ROUTE: Final = 0
NETFILTER: Final = 12

REQUEST: Final = 0x1
ACK: Final = 0x4
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
APPEND: Final = 0x800

_ERROR: Final = 2
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("=IHHII")


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute: length, kind, payload, padding to four bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """A netlink message with its header."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


class Netlink:
    """A netlink socket of the network namespace the process is in when it is made; use as a context manager."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(10)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next_sequence(self) -> int:
        """A fresh sequence number for a message of a batch."""
        self._sequence += 1
        return self._sequence

    def send(self, packet: bytes, what: str) -> None:
        """Send messages of which the last one asks for an acknowledgement; raise `OSError` naming `what` on refusal."""
        self._socket.send(packet)
        while True:
            answer = self._socket.recv(65536)
            offset = 0
            while offset + _HEADER.size <= len(answer):
                length, kind, _flags, _sequence, _port = _HEADER.unpack_from(answer, offset)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", answer, offset + _HEADER.size)
                    if code:
                        raise OSError(-code, f"{what}: {os.strerror(-code)}")
                    return
                offset += max(_HEADER.size, (length + 3) & ~3)

    def ask(self, kind: int, flags: int, payload: bytes, what: str) -> None:
        """Send one message and wait for its acknowledgement."""
        self.send(message(kind, flags | REQUEST | ACK, self.next_sequence(), payload), what)
