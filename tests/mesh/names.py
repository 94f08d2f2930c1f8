"""A DNS server on the loopback of this machine: what the world outside says, as far as a test needs a world."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class World:
    """Names and their one address; others do not exist. `asked` is what was asked for."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.address = f"127.0.0.1:{listening.getsockname()[1]}"
        self.names: dict[str, str] = {}
        self.asked: set[str] = set()

    def serve(self) -> None:
        """Until the socket is closed."""
        while True:
            try:
                message, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            if message == b"end":
                return
            self._socket.sendto(self._answer(message), sender)

    def _answer(self, message: bytes) -> bytes:
        labels, at = [], 12
        while length := message[at]:
            labels.append(message[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name = ".".join(labels).lower()
        self.asked.add(name)
        (kind,) = struct.unpack(">H", message[at + 1 : at + 3])
        address = self.names.get(name)
        is_answered = address is not None and kind == 1
        flags = 0x8180 if address else 0x8183
        head = struct.pack(">HHHHHH", int.from_bytes(message[:2], "big"), flags, 1, int(is_answered), 0, 0)
        record = b""
        if is_answered and address:
            record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address)
        return head + message[12 : at + 5] + record


@contextmanager
def world() -> Iterator[World]:
    """One that answers as long as the block lasts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        found = World(listening)
        thread = threading.Thread(target=found.serve)
        thread.start()
        try:
            yield found
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", listening.getsockname())
            thread.join()


def address_of_this_machine() -> str:
    """An address of this machine that is not its loopback: what a pod may reach past the edge."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        return str(asking.getsockname()[0])


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as asking:
        asking.bind(("0.0.0.0", 0))
        return int(asking.getsockname()[1])
