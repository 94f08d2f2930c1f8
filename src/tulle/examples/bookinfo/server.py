"""A small threaded HTTP/1.1 server that leaves politely: one thread per connection, keep-alive, upgrade, drain.

It calls one `Handler` per request and knows nothing of what a service answers. Bytes on the wire are `http1`'s.

Two choices matter to a proxy in front of it. Idle connections are never closed by a timer: a proxy that reuses one in
that moment would see a reset. And after SIGTERM idle connections linger for a moment, for a request already on its way.
"""

import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from .http1 import REASONS, ClosedError, Head, Headers, Link, ProtocolError, message, wants_close
from .pod import Pod, number

LINGER = 0.3
"""Seconds an idle connection stays open after SIGTERM, unless the environment says otherwise."""
DEADLINE = 1.7
"""Seconds after SIGTERM at which unfinished requests are cut: the process promises to be gone within 2."""
CONNECTIONS = 1000
"""Open connections, each a thread; more wait in the listen queue."""
LONGEST_DELAY = 30.0


class Request(NamedTuple):
    """One request, whole."""

    method: str
    path: str
    query: str
    fields: Headers
    body: bytes


class Response(NamedTuple):
    """One response, whole."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()


class Upgrade(NamedTuple):
    """A 101 response; `talk` owns the connection after it and returns soon after the event is set."""

    fields: tuple[tuple[str, str], ...]
    talk: Callable[[Link, threading.Event], None]


Handler = Callable[[Request], Response | Upgrade]


class Server:
    """Listens from construction on; `run` serves until `stop` and returns when the last request has been answered."""

    def __init__(self, pod: Pod, handler: Handler, port: int) -> None:
        self._pod = pod
        self._handler = handler
        self._listener = socket.create_server((os.environ.get("BIND_ADDRESS", "0.0.0.0"), port), backlog=CONNECTIONS)
        self._listener.setblocking(False)
        self._wake, self._waker = socket.socketpair()
        self._linger = number("LINGER", LINGER)
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._open: dict[Link, bool] = {}  # connection -> whether a request is being served on it

    @property
    def port(self) -> int:
        """The port it listens on, also when 0 was asked for."""
        port: int = self._listener.getsockname()[1]
        return port

    def stop(self) -> None:
        """Begin to drain; safe in a signal handler."""
        self._waker.send(b".")

    def run(self) -> int:
        """Serve, drain, and return how many requests had to be cut at the deadline."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while self._wake.fileno() not in {ready for ready, _ in poll.poll()}:
            self._accept()
            with self._changed:
                # A full house waits in the listen queue instead of in memory.
                self._changed.wait_for(lambda: len(self._open) < CONNECTIONS, timeout=1)
        return self._drain()

    def _accept(self) -> None:
        """Take what waits in the listen queue, as far as there is room."""
        for _ in range(CONNECTIONS - len(self._open)):
            try:
                sock, _peer = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return  # the queue is empty, or a peer left it
            except OSError as error:
                self._pod.say(f"cannot accept: {error}")  # out of descriptors: the queue waits
                time.sleep(0.1)
                return
            sock.setblocking(True)
            link = Link(sock)
            with self._changed:
                self._open[link] = False
            threading.Thread(target=self._converse, args=(link,), daemon=True).start()

    def _drain(self) -> int:
        began = time.monotonic()
        self._stopping.set()
        self._accept()  # whoever is in the queue believes to be connected
        self._listener.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._open, timeout=self._linger)
            while self._open and time.monotonic() < began + DEADLINE:
                for link, busy in self._open.items():
                    if not busy:
                        _stop_reading(link)
                self._changed.wait_for(lambda: not self._open, timeout=0.1)
            return sum(self._open.values())

    def _converse(self, link: Link) -> None:
        try:
            while link.wait() and self._turn(link):
                self._mark(link, busy=False)
        except ProtocolError as error:
            self._refuse(link, error)
        except (OSError, ClosedError):
            pass  # the peer is gone: there is nobody to tell
        finally:
            link.close()
            with self._changed:
                del self._open[link]
                self._changed.notify_all()

    def _mark(self, link: Link, *, busy: bool) -> None:
        with self._changed:
            self._open[link] = busy

    def _turn(self, link: Link) -> bool:
        """Answer one request; tells whether another may follow on this connection."""
        self._mark(link, busy=True)
        head = link.head()
        request = _request(head, link)
        answer = self._answer(request)
        if isinstance(answer, Upgrade):
            link.send(message(_status(101), (*self._pod.headers, *answer.fields)))
            answer.talk(link, self._stopping)
            return False
        closing = wants_close(head.start, head.fields) or self._stopping.is_set()
        link.send(self._written(answer, closing=closing, empty=request.method == "HEAD"))
        return not closing

    def _answer(self, request: Request) -> Response | Upgrade:
        try:
            return _planted(request) or self._handler(request)
        except Exception as error:  # one broken request must not take the process with it
            traceback.print_exc()
            return Response(500, f'{{"error": "{type(error).__name__}"}}\n'.encode())

    def _written(self, answer: Response, *, closing: bool, empty: bool = False) -> bytes:
        fields = [
            ("content-type", answer.kind),
            ("content-length", str(len(answer.body))),
            *self._pod.headers,
            *answer.fields,
        ]
        if closing:
            fields.append(("connection", "close"))
        return message(_status(answer.status), fields, b"" if empty else answer.body)

    def _refuse(self, link: Link, error: ProtocolError) -> None:
        with suppress(OSError):  # it may not have waited for the answer
            link.send(self._written(Response(error.status, f"{error}\n".encode(), "text/plain"), closing=True))


def serve(pod: Pod, handler: Handler, *, load: Callable[[], Callable[[], None]] | None = None) -> int:
    """Run one service to its end: listen on PORT, serve until SIGTERM or SIGINT, drain, return the exit code.

    `load` does what takes long: the port listens already, the first request waits. It returns what undoes it at the end.
    """
    server = Server(pod, handler, int(number("PORT", 9080)))
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: server.stop())
    pod.say(f"listening http={server.port} pod={pod.name}")
    unload = load() if load else None
    cut = server.run()
    if unload:
        unload()
    pod.say(f"stopped, {cut} requests cut" if cut else "stopped")
    return 0


def _status(status: int) -> str:
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}"


def _request(head: Head, link: Link) -> Request:
    try:
        method, target, version = head.start.split(" ")
    except ValueError:
        raise ProtocolError(400, f"not a request line: {head.start[:80]!r}") from None
    if not version.startswith("HTTP/1."):
        raise ProtocolError(400, f"{version[:20]!r} is not HTTP/1")
    path, _, query = target.partition("?")
    return Request(method, path, query, head.fields, link.body(head.fields))


def _planted(request: Request) -> Response | None:
    """Faults on demand: `/status/503` answers so, `/delay/0.5` answers late. For trying retries and timeouts."""
    what, _, amount = request.path[1:].partition("/")
    if what not in {"status", "delay"}:
        return None
    try:
        if what == "status":
            return Response(min(599, max(200, int(amount))), b"{}\n")
        time.sleep(min(LONGEST_DELAY, max(0.0, float(amount))))
    except ValueError:
        return Response(400, b'{"error": "not a number"}\n')
    return Response(200, b"{}\n")


def _stop_reading(link: Link) -> None:
    with suppress(OSError):  # its peer may be closing it in this very moment
        # Bytes that arrived before are still read and answered; then the thread sees the end.
        link.sock.shutdown(socket.SHUT_RD)
