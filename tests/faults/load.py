"""Open-loop load that counts every request: a workload of the fault mesh, or a caller outside of it.

Half of the requests travel on kept connections, half on a connection of their own; beside them one long TCP stream and one
long gRPC stream. Standard library (and grpcio where the gRPC stream is wanted); never retries. One JSON line per second:
what was due in it, written when the last of it has ended. Knows no mesh; which second belongs to which fault is `rows.py`'s.

Environment: LOAD_TARGETS (URLs, comma-separated), LOAD_OUT (file), LOAD_RATE (requests/s), LOAD_SECONDS (0: until SIGTERM),
LOAD_CONTROL (file, `{"rate": 100, "targets": [...]}`, read each second), LOAD_TCP and LOAD_GRPC (host:port), LOAD_CA (PEM
of an https target's roots).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

PATIENCE_S = 10.0
"""For one request, connecting included."""
TICK_S = 0.004
KEPT_CONNECTIONS = 32
"""Per target, at most: a request that finds all of them busy waits for one, as callers with a pool do. Opening another
instead would turn every delay into handshakes, and the handshakes into more delay."""
NAME_KEPT_S = 5.0
ECHO_EVERY_S = 0.1
STREAM_PATIENCE_S = 10.0
NAMED_FAILURES = 200
"""Per second, told one by one; the rest is only counted."""

Answer = TypeVar("Answer")


@dataclass
class Target:
    """One URL and its kept connections."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    name: str
    idle: deque[Connection] = field(default_factory=deque)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(KEPT_CONNECTIONS))
    """Of kept connections that are in use or being opened."""
    address: str = ""
    resolved_at: float = -1e9

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Connection]:
        """The kept connection that rested longest, or one more; yours until you leave. Raises FailedError."""
        async with self.places:
            while self.idle and not self.idle[0].is_usable:
                self.idle.popleft()
            connection = self.idle.popleft() if self.idle else await opened(self)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if connection.is_open:
                self.idle.append(connection)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[Connection]:
        """A connection of its own. Raises FailedError."""
        connection = await opened(self)
        try:
            yield connection
        finally:
            connection.close()

    async def resolved(self) -> str:
        """The address, asked for every few seconds: asking for each connection would be a test of the name server."""
        if time.monotonic() > self.resolved_at + NAME_KEPT_S:
            self.resolved_at = time.monotonic()
            found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, family=socket.AF_INET)
            self.address = str(found[0][4][0])
        return self.address or self.host


def target_of(url: str, ca: str | None) -> Target:
    """`https://name@127.0.0.1:8443/path`: `name` is what is asked for (Host and SNI), if it is not the address."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    context = None
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["http/1.1"])
    return Target(host, port, parts.path or "/", context, parts.username or host)


@dataclass
class Second:
    """What was due in one second."""

    at: int
    sent: int = 0
    new: int = 0
    ok: int = 0
    failed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    lag_ms: float = 0.0
    """The latest that a request was begun after it was due: this program's own lateness, never a failure."""
    pods: Counter[str] = field(default_factory=Counter)
    serials: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """Every request of it has ended."""
        return self.ok + self.failed == self.sent


class FailedError(Exception):
    """A request that got no good answer; the text is the reason."""


class Connection:
    """One HTTP/1.1 connection; one request at a time.

    On the bare socket: a TLS handshake through asyncio's own streams costs the caller twice as much, and two cores hold the
    whole mesh beside it.
    """

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self.is_open = True
        self.serial = ""
        if isinstance(peer, ssl.SSLSocket):
            self.serial = str((peer.getpeercert() or {}).get("serialNumber", ""))

    @property
    def is_usable(self) -> bool:
        """Whether the other side has not ended it while it rested."""
        if self.is_open:
            try:
                self._peer.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            except OSError:
                pass
            self.close()
        return False

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body. Raises FailedError."""
        received, ends = b"", -1
        try:
            self._peer.send(request)
            while ends < 0 or len(received) < ends:
                found = await soon(self._peer, lambda: self._peer.recv(65536))
                if not found:
                    raise FailedError(f"closed {_place(received)} an answer: end of stream")
                received += found
                head = received.find(b"\r\n\r\n") if ends < 0 else -1
                if head >= 0:
                    ends = head + 4 + _length(received[:head])
        except OSError as error:
            raise FailedError(f"closed {_place(received)} an answer: {error!r}") from error
        head_bytes, _, body = received.partition(b"\r\n\r\n")
        return int(head_bytes[9:12]), head_bytes, body

    def close(self) -> None:
        """Give it back to the system."""
        self.is_open = False
        self._peer.close()


def _place(received: bytes) -> str:
    return f"after {len(received)} bytes of" if received else "before"


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def soon(peer: socket.socket, operation: Callable[[], Answer]) -> Answer:
    """The operation's result, tried again whenever the socket is ready for it. Raises OSError."""
    loop = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            return operation()
        except (BlockingIOError, ssl.SSLWantReadError):
            loop.add_reader(peer, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_reader(peer)


async def opened(target: Target) -> Connection:
    """A fresh connection. Raises FailedError."""
    peer = socket.socket()
    peer.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(peer, (await target.resolved(), target.port))
        if target.tls is None:
            return Connection(peer)
        secure = peer = target.tls.wrap_socket(peer, server_hostname=target.name, do_handshake_on_connect=False)
        await soon(secure, secure.do_handshake)
        return Connection(secure)
    except OSError as error:
        peer.close()
        raise FailedError(f"connect: {type(error).__name__} {error}") from error
    except BaseException:
        peer.close()
        raise


class Load:
    """Sends what is due and writes what became of it."""

    def __init__(self, targets: list[Target], rate: float, out: Path) -> None:
        self.targets = targets
        self.rate = rate
        self.stopping = asyncio.Event()
        self.streams: list[Stream] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds: deque[Second] = deque()
        self._out = out.open("a", buffering=1)
        self._number = 0

    async def warm(self, patience_s: float = 60.0) -> None:
        """Wait until each target answers once: what comes before is not counted."""
        for target in self.targets:
            ends = time.monotonic() + patience_s
            while True:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await self._request(target, "warm", is_new=True, second=Second(0))
                    break
                except (FailedError, TimeoutError) as error:
                    if time.monotonic() > ends:
                        raise SystemExit(f"{target.name}:{target.port} never answered: {error}") from None
                    await asyncio.sleep(0.1)

    async def run(self, seconds: float) -> None:
        """Until `seconds` are over (0: until told to stop) and the last answer is there."""
        began = due = time.monotonic()
        while not self.stopping.is_set() and (not seconds or due < began + seconds):
            now = time.monotonic()
            while due <= now and (not seconds or due < began + seconds):
                self._send(due, now)
                due += 1.0 / self.rate
            self._write()
            await asyncio.sleep(max(TICK_S, due - time.monotonic()))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE_S + 1)
        self._write(is_last=True)

    def _send(self, due: float, now: float) -> None:
        at = int(time.time() - (now - due))
        if not self._seconds or self._seconds[-1].at < at:
            self._seconds.append(Second(at))
        second = self._seconds[-1]
        second.sent += 1
        second.lag_ms = max(second.lag_ms, (now - due) * 1000)
        self._number += 1
        # Consecutive pairs take the same target, one of each sort: every target sees both halves.
        target = self.targets[self._number // 2 % len(self.targets)]
        task = asyncio.ensure_future(self._one(target, str(self._number), second, is_new=bool(self._number % 2)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, target: Target, token: str, second: Second, *, is_new: bool) -> None:
        second.new += is_new
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._request(target, token, is_new=is_new, second=second)
        except FailedError as error:
            self._failed(second, target, str(error), is_new=is_new)
        except TimeoutError:
            self._failed(second, target, f"no answer within {PATIENCE_S:.0f} s", is_new=is_new)
        else:
            second.ok += 1
        second.ms.append(round((time.monotonic() - began) * 1000, 1))

    def _failed(self, second: Second, target: Target, reason: str, *, is_new: bool) -> None:
        second.failed += 1
        if len(second.failures) < NAMED_FAILURES:
            sort = "new" if is_new else "kept"
            second.failures.append(
                {"at": round(time.time(), 3), "target": f"{target.name}:{target.port}", "on": sort, "reason": reason}
            )

    async def _request(self, target: Target, token: str, *, is_new: bool, second: Second) -> None:
        last = "Connection: close\r\n" if is_new else ""
        async with target.fresh() if is_new else target.kept() as connection:
            status, head, body = await connection.ask(
                f"GET {target.path}?{token} HTTP/1.1\r\nHost: {target.name}:{target.port}\r\n{last}\r\n".encode()
            )
            if b"connection: close" in head.lower():
                connection.close()
        if status != 200:
            said = body[:120].decode(errors="replace")
            raise FailedError(f"status {status}: {said}")
        pod, _, echoed = body.decode(errors="replace").strip().partition(" ")
        if echoed != token:
            raise FailedError(f"wrong answer: {body[:80]!r}")
        second.pods[pod] += 1
        if connection.serial:
            second.serials[connection.serial] += 1

    def _write(self, *, is_last: bool = False) -> None:
        now = int(time.time())
        while self._seconds and (is_last or (self._seconds[0].at < now and self._seconds[0].is_over)):
            second = self._seconds.popleft()
            line = {**vars(second), "lag_ms": round(second.lag_ms, 1)}
            line["streams"] = [stream.told() for stream in self.streams]
            self._out.write(json.dumps(line, separators=(",", ":")) + "\n")


class Stream:
    """A long conversation: every word must come back, in order, on the first connection."""

    kind = ""

    def __init__(self, place: str) -> None:
        self.host, _, port = place.rpartition(":")
        self.port = int(port)
        self.echoes = 0
        self.began = 0.0
        self.slowest_ms = 0.0
        self.failures: list[dict[str, Any]] = []

    def told(self) -> dict[str, Any]:
        """For the result file; failures are all since the start."""
        return {
            "kind": self.kind,
            "echoes": self.echoes,
            "began": self.began,
            "slowest_ms": round(self.slowest_ms, 1),
            "failures": self.failures,
        }

    async def run(self) -> None:
        """Hold the conversation; begin anew after a failure, which stays counted."""
        while len(self.failures) < NAMED_FAILURES:
            before = self.echoes
            try:
                await self.talk()
            except Exception as error:  # noqa: BLE001 - whatever ends the stream is what is counted
                if self.echoes:
                    reason = f"{type(error).__name__}: {error}"
                    self.failures.append(
                        {"at": round(time.time(), 3), "reason": reason, "echoes": self.echoes - before}
                    )
            await asyncio.sleep(0.5)

    async def talk(self) -> None:
        """One conversation until it breaks."""
        raise NotImplementedError

    def heard(self, said: bytes, back: bytes, began: float) -> None:
        """Count an echo. Raises FailedError when it is another."""
        if said != back:
            raise FailedError(f"said {said!r}, heard {back!r}")
        self.echoes += 1
        self.began = self.began or round(time.time(), 3)
        self.slowest_ms = max(self.slowest_ms, (time.monotonic() - began) * 1000)


class TcpStream(Stream):
    """Lines over one raw connection."""

    kind = "tcp"

    async def talk(self) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            while True:
                began = time.monotonic()
                said = b"%d\n" % self.echoes
                writer.write(said)
                async with asyncio.timeout(STREAM_PATIENCE_S):
                    back = await reader.readline()
                if not back:
                    raise FailedError("end of stream")
                self.heard(said, back, began)
                await asyncio.sleep(ECHO_EVERY_S)
        finally:
            writer.close()


class GrpcStream(Stream):
    """Messages over one bidirectional call."""

    kind = "grpc"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        # Here, not while requests are under way: it takes a tenth of a second.
        import grpc.aio  # noqa: F401

    async def talk(self) -> None:
        import grpc.aio

        options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"{self.host}:{self.port}", options=options) as channel:
            call = channel.stream_stream("/tulle.tests.Echo/Talk")()
            while True:
                began = time.monotonic()
                said = b"%d" % self.echoes
                await call.write(said)
                async with asyncio.timeout(STREAM_PATIENCE_S):
                    back = await call.read()
                if back is grpc.aio.EOF:
                    raise FailedError(f"end of stream: {await call.code()} {await call.details()}")
                self.heard(said, back, began)
                await asyncio.sleep(ECHO_EVERY_S)


async def follow(control: Path, load: Load, ca: str | None) -> None:
    """Take a new rate or new targets from a file, once a second."""
    seen = b""
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = control.read_bytes()
            if found != seen and found:
                seen, wanted = found, json.loads(found)
                load.rate = float(wanted.get("rate", load.rate))
                if "targets" in wanted:
                    load.targets = [target_of(url, ca) for url in wanted["targets"]]
        await asyncio.sleep(1.0)


async def main() -> None:
    """Run as the environment says."""
    env = os.environ
    ca = env.get("LOAD_CA")
    targets = [target_of(url, ca) for url in env["LOAD_TARGETS"].split(",")]
    load = Load(targets, float(env.get("LOAD_RATE", "500")), Path(env["LOAD_OUT"]))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, load.stopping.set)
    places = ((TcpStream, env.get("LOAD_TCP")), (GrpcStream, env.get("LOAD_GRPC")))
    load.streams = [kind(place) for kind, place in places if place]
    await load.warm()
    beside = [asyncio.ensure_future(stream.run()) for stream in load.streams]
    if env.get("LOAD_CONTROL"):
        beside.append(asyncio.ensure_future(follow(Path(env["LOAD_CONTROL"]), load, ca)))
    try:
        await load.run(float(env.get("LOAD_SECONDS", "60")))
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
