"""The DNS server of a mesh: answers its names from the control plane's file, forwards everything else.

UDP and TCP on the bridge's address, which is the only one pods may send UDP to. What an answer looks like is
`dns_wire`'s business; which names exist is the control plane's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Final

from tulle.local import dns_wire
from tulle.local.dns_wire import Host, Question

_PATIENCE: Final = 2.0
_LARGEST: Final = 65535
_IDLE: Final = 10.0
_PENDING_LIMIT: Final = 1000
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLVERS_VARIABLE: Final = "TULLE_RESOLVERS"
"""Resolvers to ask instead of those of resolv.conf: `address` or `address:port`, separated by commas."""
_PORT: Final = 53


class NameServer:
    """Answers on sockets that somebody else opened.

    The one for workloads gives a ServiceEntry's host the address it has in the mesh. The one `of_world`, for sidecars, knows
    only the mesh's own domain and asks the world for the rest: there a host's address is where it really is.
    """

    def __init__(self, names_file: Path, domain: str = "cluster.local", *, of_world: bool = False) -> None:
        self._of_world = of_world
        self._file = names_file
        self._domain = domain
        self._signature: tuple[int, int, int] | None = None
        self._names: dict[str, Host] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._upstream = host_resolvers()

    async def start(self, datagrams: socket.socket, connections: socket.socket) -> None:
        """Begin to answer."""
        self._socket = datagrams
        asyncio.get_running_loop().add_reader(datagrams.fileno(), self._readable, datagrams)
        self._server = await asyncio.start_server(self._connected, sock=connections)

    async def stop(self) -> None:
        """Stop answering and close both sockets."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()

    def names(self) -> dict[str, Host]:
        """The names as they are now: the file is read again when it changed."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return self._names
        signature = (found.st_mtime_ns, found.st_size, found.st_ino)
        if signature != self._signature:
            # Written by renaming: whole, or not there.
            content = json.loads(self._file.read_bytes())
            self._names = {
                name.lower().rstrip("."): Host(tuple(entry.get("a") or ()), (entry.get("cname") or "").rstrip("."))
                for name, entry in content.get("names", {}).items()
            }
            if self._of_world:
                self._names = {name: host for name, host in self._names.items() if name.endswith(f".{self._domain}")}
            self._signature = signature
        return self._names

    def _readable(self, datagrams: socket.socket) -> None:
        for _ in range(64):
            try:
                message, sender = datagrams.recvfrom(_LARGEST)
            except (BlockingIOError, ConnectionError):
                return
            asked = dns_wire.question(message)
            if asked is None:
                continue
            answer = dns_wire.answer(message, asked, self.names(), self._domain)
            if answer is not None:
                _send(datagrams, answer, sender)
            elif len(self._tasks) < _PENDING_LIMIT:
                self._spawn(self._forward_datagram(datagrams, message, asked, sender))

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward_datagram(
        self, datagrams: socket.socket, message: bytes, asked: Question, sender: tuple[str, int]
    ) -> None:
        _send(datagrams, await self.forward(message, asked), sender)

    async def forward(self, message: bytes, asked: Question) -> bytes:
        """What the machine's own resolvers say; a failure when none answers in time."""
        alias = dns_wire.alias_of(asked, self.names())
        if alias:
            return dns_wire.aliased(message, asked, alias, await self._addresses(alias))
        for server in self._upstream:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(_PATIENCE):
                    return await _asked(server, message)
        return dns_wire.failed(message, asked)

    async def _addresses(self, name: str) -> tuple[str, ...]:
        """Of an outside name: from the resolvers, else as this machine looks names up (its hosts file)."""
        message = dns_wire.query(os.getpid() & 0xFFFF, name)
        asked = dns_wire.question(message)
        assert asked is not None
        return dns_wire.addresses_in(await self.forward(message, asked)) or await _looked_up(name)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_IDLE):
                message = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                asked = dns_wire.question(message)
                if asked is None:
                    return
                answer = dns_wire.answer(message, asked, self.names(), self._domain)
                if answer is None:
                    answer = await self.forward(message, asked)
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (OSError, EOFError):
            pass  # the pod went away, or never asked
        finally:
            writer.close()


def host_resolvers() -> tuple[tuple[str, int], ...]:
    """Addresses and ports of the resolvers that know the world: this machine's, unless $TULLE_RESOLVERS names others."""
    said = os.environ.get(RESOLVERS_VARIABLE, "").replace(" ", "")
    if said:
        parts = (word.rpartition(":") if word.count(":") == 1 else (word, "", "") for word in said.split(","))
        return tuple((address, int(port or _PORT)) for address, _, port in parts)
    try:
        lines = _RESOLV_CONF.read_text().splitlines()
    except OSError:
        return ()
    found = (line.split() for line in lines)
    return tuple((words[1], _PORT) for words in found if len(words) > 1 and words[0] == "nameserver")


def _send(datagrams: socket.socket, message: bytes, to: tuple[str, int]) -> None:
    # A pod that is gone, or a full buffer: datagrams may be lost, resolvers ask again.
    with contextlib.suppress(OSError):
        datagrams.sendto(message, to)


async def _looked_up(name: str) -> tuple[str, ...]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(sorted({str(one[4][0]) for one in found}))


async def _asked(server: tuple[str, int], message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as outward:
        outward.setblocking(False)
        outward.connect(server)
        await loop.sock_sendall(outward, message)
        while True:
            answer = await loop.sock_recv(outward, _LARGEST)
            if answer[:2] == message[:2]:
                return answer
