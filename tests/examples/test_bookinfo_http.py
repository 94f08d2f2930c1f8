"""The wire: what a proxy may send, what a client must survive, and how a process leaves under load."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

import pytest
from bookinfo_shop import Process, answering, neighbour, running
from websockets.sync.client import connect


@pytest.fixture(scope="module")
def details() -> Iterator[Process]:
    with running("details") as process:
        yield process


def said(process: Process, words: bytes) -> bytes:
    """Everything the server answers until it closes or two seconds of silence."""
    with socket.create_connection(("127.0.0.1", process.ports["http"]), timeout=2) as sock:
        sock.sendall(words)
        received = b""
        try:
            while chunk := sock.recv(65536):
                received += chunk
        except TimeoutError:
            return received + b"<open>"
    return received


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70000, 431),
    ],
)
def test_what_is_not_http_is_refused_and_closed(details: Process, words: bytes, status: int) -> None:
    answer = said(details, words)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert not answer.endswith(b"<open>")


def test_keep_alive_pipelining_chunked_bodies_and_head(details: Process) -> None:
    chunked = b"POST /health HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\ntrailer: z\r\n\r\n"
    head = b"HEAD /details/0 HTTP/1.1\r\n\r\n"
    last = b"GET /details/0 HTTP/1.1\r\nconnection: close\r\n\r\n"
    answer = said(details, b"GET /health HTTP/1.1\r\n\r\n" + chunked + head + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(b"Light Nets") == 1
    assert answer.count(b"connection: close") == 1
    assert not answer.endswith(b"<open>")


def test_http_1_0_closes_and_1_1_stays_open(details: Process) -> None:
    assert not said(details, b"GET /health HTTP/1.0\r\n\r\n").endswith(b"<open>")
    assert said(details, b"GET /health HTTP/1.1\r\n\r\n").endswith(b"<open>")


BOOK = json.dumps({"title": "Told <in> parts", "pod": "p"}).encode()


def in_chunks(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BOOK[:5], BOOK[5:])) + b"0\r\n\r\n")


def until_close(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(BOOK)
    handler.close_connection = True


def then_closed_unannounced(handler: BaseHTTPRequestHandler) -> None:
    answering(200, BOOK)(handler)
    handler.close_connection = True


@pytest.mark.parametrize("reply", [in_chunks, until_close, then_closed_unannounced])
def test_the_client_reads_every_framing_and_survives_a_closed_connection(reply: object) -> None:
    assert callable(reply)
    with neighbour(reply) as url, running("productpage", DETAILS_URL=url, REVIEWS_URL=url) as page:
        for _ in range(5):
            shown = page.get("/productpage")
            assert shown.status == 200
            assert "Told &lt;in&gt; parts" in shown.text


def test_the_client_keeps_its_connections() -> None:
    peers = set()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        peers.add(handler.client_address)
        answering(200, b"{}")(handler)

    with neighbour(reply) as url, running("productpage", DETAILS_URL=url, REVIEWS_URL=url) as page:
        for _ in range(5):
            page.get("/productpage")
    assert len(peers) == 2  # one pool per neighbour


def test_the_client_goes_through_http_proxy_where_there_is_one() -> None:
    seen = []

    def reply(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, handler.headers["host"]))
        answering(200, b"{}")(handler)

    with neighbour(reply) as proxy, running("productpage", http_proxy=proxy, no_proxy="elsewhere") as page:
        assert page.get("/productpage").status == 200
    assert seen == [
        ("http://details:9080/details/0", "details:9080"),
        ("http://reviews:9080/reviews/0", "reviews:9080"),
    ]


class Reader(threading.Thread):
    """Asks without a pause on kept connections until the server is gone; a request that began must be answered."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.answered = 0
        self.cut: list[str] = []
        self.closing_seen = False

    def run(self) -> None:
        while not self.closing_seen:
            try:
                sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            except ConnectionRefusedError:
                return
            with sock:
                self._ask(sock)

    def _ask(self, sock: socket.socket) -> None:
        for _ in range(10):  # half-fresh connections: some are always in the listen queue
            try:
                sock.sendall(b"GET /delay/0.02 HTTP/1.1\r\nhost: x\r\n\r\n")
                answer = sock.recv(65536)
            except OSError as error:
                self.cut.append(repr(error))
                return
            if not answer.endswith(b"{}\n"):
                self.cut.append(f"half an answer: {answer!r}")
                return
            self.answered += 1
            if b"connection: close" in answer:
                self.closing_seen = True
                return


def test_sigterm_under_load_cuts_no_request() -> None:
    for _ in range(3):
        with running("details") as process:
            readers = [Reader(process.ports["http"]) for _ in range(24)]
            for reader in readers:
                reader.start()
            time.sleep(0.4)
            code, took = process.terminate()
            for reader in readers:
                reader.join(20)
            assert [line for reader in readers for line in reader.cut] == []
            assert sum(reader.answered for reader in readers) > 100
            assert sum(reader.closing_seen for reader in readers) > 12
            assert code == 0
            assert took < 2
            assert process.lines[-1] == "[details v1] stopped"


def test_who_waits_in_the_listen_queue_at_sigterm_is_answered() -> None:
    with running("details") as process, ExitStack() as stack:
        process.popen.send_signal(signal.SIGSTOP)  # the kernel goes on accepting
        place = ("127.0.0.1", process.ports["http"])
        waiting = [stack.enter_context(socket.create_connection(place, timeout=10)) for _ in range(100)]
        for sock in waiting:
            sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        process.popen.terminate()
        process.popen.send_signal(signal.SIGCONT)
        assert all(b"200 OK" in sock.recv(4096) for sock in waiting)
        assert process.popen.wait(5) == 0


def test_an_idle_connection_may_still_ask_after_sigterm() -> None:
    with running("details", LINGER="1.5") as process, ExitStack() as stack:
        place = ("127.0.0.1", process.ports["http"])
        asks, idles = (stack.enter_context(socket.create_connection(place, timeout=5)) for _ in range(2))
        for sock in (asks, idles):
            sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert b"200 OK" in sock.recv(4096)
        process.popen.terminate()
        time.sleep(0.3)
        asks.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert b"connection: close" in asks.recv(4096)
        assert asks.recv(4096) == b""
        assert idles.recv(4096) == b""
        assert process.popen.wait(5) == 0


def test_a_request_longer_than_the_deadline_is_cut_and_counted() -> None:
    with (
        running("details") as process,
        socket.create_connection(("127.0.0.1", process.ports["http"]), timeout=10) as sock,
    ):
        sock.sendall(b"GET /delay/20 HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
        code, took = process.terminate()
        process.until(lambda: process.lines[-1] == "[details v1] stopped, 1 requests cut", "the count")
    assert code == 0
    assert took < 2


def test_ratings_leaves_its_streams_in_order() -> None:
    with running("ratings", 2, LIVE_INTERVAL="0.05") as process:
        with connect(f"ws://127.0.0.1:{process.ports['http']}/live", compression=None) as live:
            live.recv(10)
            code, took = process.terminate()
            rest = list(live)  # ends at the close frame; raises ConnectionClosedError without one
            assert all("tick" in line for line in rest)
            assert live.close_code == 1001
        assert code == 0
        assert took < 2
