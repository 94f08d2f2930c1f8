"""What the shop shows, who says so, and what travels from request to request."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import grpc
import pytest
from bookinfo_shop import Process, answering, neighbour, running
from websockets.sync.client import connect

from tulle.examples.bookinfo import rpc

Shop = dict[str, Process]
DEAD = "http://127.0.0.1:1"
TRACE = {
    "x-request-id": "r-1",
    "x-b3-traceid": "80f198ee56343ba864fe8b2a57d3eff7",
    "b3": "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "shop=1",
}


@pytest.mark.parametrize(
    ("version", "colour", "look"),
    [("v1", None, "no stars"), ("v2", "#1c1b1a", "black stars"), ("v3", "#d22b2b", "red stars")],
)
def test_each_version_of_reviews_is_visible_on_the_page(
    shop: Shop, version: str, colour: str | None, look: str
) -> None:
    page = shop[f"page-{version}"].get("/productpage")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert ("★★★★☆" in page.text) is bool(colour)
    assert (f'class="stars" style="color:{colour}"' in page.text) is bool(colour)
    assert f"({look})" in page.text
    for pod in ("details-pod", f"reviews-{version}-pod", "productpage-pod"):
        assert f"<code>{pod}</code>" in page.text
    assert ("<code>ratings-pod</code>" in page.text) is bool(colour)


def test_every_response_names_its_author(shop: Shop) -> None:
    for name, path in (
        ("details", "/details/0"),
        ("v2", "/reviews/0"),
        ("ratings", "/ratings/0"),
        ("page-v1", "/nothing"),
    ):
        fields = shop[name].get(path).headers
        assert fields["x-service"] == ("productpage" if name == "page-v1" else path.split("/")[1])
        assert fields["x-pod"]
        assert fields["x-version"] == ("v2" if name == "v2" else "v1")
    page = shop["page-v3"].get("/productpage").headers
    assert (page["x-reviews-version"], page["x-reviews-pod"]) == ("v3", "reviews-v3-pod")
    assert (page["x-details-pod"], page["x-ratings-pod"]) == ("details-pod", "ratings-pod")


def test_the_product_as_json_holds_both_answers(shop: Shop) -> None:
    product = json.loads(shop["page-v3"].get("/api/v1/products/0").text)
    assert product["details"]["title"] == "Light Nets"
    assert [review["rating"] for review in product["reviews"]["reviews"]] == [
        {"stars": 5, "colour": "red"},
        {"stars": 4, "colour": "red"},
    ]


@pytest.mark.parametrize("name", ["details", "ratings", "v1", "v2", "page-v1"])
def test_health_and_unknown_paths(shop: Shop, name: str) -> None:
    assert shop[name].get("/health").status == 200
    assert shop[name].get("/details/1").status == 404
    assert shop[name].get("/status/503").status == 503


def test_a_delay_on_demand_is_a_delay(shop: Shop) -> None:
    began = time.monotonic()
    assert shop["details"].get("/delay/0.2").status == 200
    assert time.monotonic() - began >= 0.2
    assert shop["details"].get("/delay/soon").status == 400


@pytest.mark.parametrize(
    ("name", "loads"), [("details", False), ("page-v1", False), ("v1", False), ("v2", True), ("ratings", True)]
)
def test_only_who_speaks_grpc_pays_for_it(shop: Shop, name: str, loads: bool) -> None:
    process = Path("/proc", str(shop[name].popen.pid))
    assert ("cygrpc" in (process / "maps").read_text()) is loads
    resident = int((process / "statm").read_text().split()[1]) * 4096
    assert resident < (64 if loads else 24) * 2**20


def test_trace_context_and_user_reach_both_neighbours(shop: Shop) -> None:
    seen: dict[str, dict[str, str]] = {}

    def recorded(handler: BaseHTTPRequestHandler) -> None:
        seen[handler.path] = {name.lower(): value for name, value in handler.headers.items()}
        answering(200, b"{}")(handler)

    with neighbour(recorded) as url, running("productpage", DETAILS_URL=url, REVIEWS_URL=url) as page:
        assert page.get("/productpage", **TRACE, end_user="jason", authorization="Bearer secret").status == 200
    for path in ("/details/0", "/reviews/0"):
        assert {name: seen[path].get(name) for name in TRACE} == TRACE
        assert seen[path]["end-user"] == "jason"
        assert "authorization" not in seen[path]


def test_trace_context_and_user_go_on_as_grpc_metadata() -> None:
    seen: dict[str, str] = {}

    def get(_request: rpc.Message, context: grpc.ServicerContext) -> rpc.Message:
        seen.update((key, str(value)) for key, value in context.invocation_metadata())
        return {"stars": {"Mina Warp": 3}, "pod": "played", "version": "v9"}

    server = grpc.server(ThreadPoolExecutor(1))
    methods = {"Get": grpc.unary_unary_rpc_method_handler(get, rpc.decode, rpc.encode)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with running("reviews", VERSION="v2", RATINGS_GRPC=f"127.0.0.1:{port}") as reviews:
            document = json.loads(reviews.get("/reviews/0", **TRACE, end_user="jason").text)
    finally:
        server.stop(None).wait()
    assert {name: seen.get(name) for name in TRACE} == TRACE
    assert seen["end-user"] == "jason"
    assert document["reviews"][0]["rating"]["stars"] == 3
    assert "rating" not in document["reviews"][1]
    assert document["ratings"] == {"pod": "played", "version": "v9"}


def test_signing_in_sets_the_user_whom_routes_can_see() -> None:
    seen: list[str | None] = []

    def recorded(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers.get("end-user"))
        answering(200, b"{}")(handler)

    with neighbour(recorded) as url, running("productpage", DETAILS_URL=url, REVIEWS_URL=url) as page:
        signed = page.get("/login", "POST", "user=Jason%0d%0aX")
        assert (signed.status, signed.headers["location"]) == (303, "/productpage")
        cookie = signed.headers["set-cookie"].split(";")[0]
        assert cookie == "session=jason0d0ax"
        assert "signed in as <b>jason</b>" in page.get("/productpage", cookie="theme=x; session=jason").text
        assert "Max-Age=0" in page.get("/logout", "POST").headers["set-cookie"]
        assert 'action="/login"' in page.get("/productpage").text
        assert page.get("/productpage", "POST").status == 405
    assert seen == ["jason", "jason", None, None]


def test_an_absent_neighbour_is_named_and_is_an_error() -> None:
    with (
        neighbour(answering(403, b"RBAC: <access> denied")) as closed,
        running("productpage", DETAILS_URL=closed, REVIEWS_URL=DEAD, RATINGS_URL=DEAD) as page,
    ):
        shown = page.get("/productpage")
        assert shown.status == 502
        assert "403 RBAC: &lt;access&gt; denied" in shown.text
        assert "Connection refused" in shown.text
        assert page.get("/api/v1/products/0").status == 502
        assert page.get("/live", upgrade="websocket", connection="Upgrade").status == 502


def test_reviews_without_ratings_says_so_and_goes_on(shop: Shop) -> None:
    with (
        running("reviews", VERSION="v3", RATINGS_GRPC="127.0.0.1:1") as reviews,
        running("productpage", DETAILS_URL=shop["details"].url, REVIEWS_URL=reviews.url) as page,
    ):
        shown = page.get("/productpage")
    assert shown.status == 200
    assert shown.headers["x-ratings-error"].startswith(("DEADLINE_EXCEEDED", "UNAVAILABLE"))
    assert "<b>ratings</b> gave no stars" in shown.text
    assert "★" not in shown.text


def test_an_unknown_version_does_not_start() -> None:
    process = Process("reviews", 0, VERSION="v4")
    try:
        assert process.popen.wait(20) == 1
        process.until(lambda: "reviews come as v1, v2, v3" in " ".join(process.lines), "the reason")
    finally:
        process.close()


def test_ratings_over_grpc(shop: Shop) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{shop['ratings'].ports['grpc']}") as channel:
        call = channel.unary_unary(rpc.GET, rpc.encode, rpc.decode)
        assert call({"product": 0}, timeout=10)["stars"] == {"Mina Warp": 5, "Otto Weft": 4}
        with pytest.raises(grpc.RpcError) as refused:
            call({"product": 7}, timeout=10)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream(rpc.WATCH, rpc.encode, rpc.decode)({}, timeout=10)
        assert [next(watch)["tick"] for _ in range(3)] == [1, 2, 3]
        watch.cancel()


@pytest.mark.parametrize("name", ["ratings", "page-v1"])
def test_the_live_ticker_speaks_both_ways_directly_and_through_the_page(shop: Shop, name: str) -> None:
    with connect(f"ws://127.0.0.1:{shop[name].ports['http']}/live", compression=None) as live:
        ticks = [json.loads(live.recv(10)) for _ in range(3)]
        assert [tick["tick"] for tick in ticks] == [1, 2, 3]
        assert {tick["pod"] for tick in ticks} == {"ratings-pod"}
        for words in ("hello", "x" * 3000):
            live.send(words)
            heard = next(answer for _ in range(50) if "heard" in (answer := json.loads(live.recv(10))))
            assert heard["heard"] == words[:200]
        assert live.ping().wait(10)
        live.close(1000)
        assert live.close_code == 1000


@contextmanager
def live_socket(process: Process) -> Iterator[socket.socket]:
    """A ticker joined by hand, to break its rules."""
    key = "GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    with socket.create_connection(("127.0.0.1", process.ports["http"]), timeout=10) as sock:
        sock.sendall(f"{key}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        yield sock


def test_the_handshake_is_the_one_of_the_rfc(shop: Shop) -> None:
    with live_socket(shop["ratings"]) as sock:
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in sock.recv(4096)
    assert shop["ratings"].get("/live").status == 426
    assert shop["page-v1"].get("/live").status == 426
    assert shop["ratings"].get("/live", upgrade="websocket").status == 400


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x01\x80\0\0\0\0", 1003),  # a fragment: opcode 1 without FIN
        (b"\x82\x80\0\0\0\0", 1003),  # binary
        (b"\x81\x81\0\0\0\0\xff", 1007),  # not UTF-8
        (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009),
    ],
)
def test_broken_frames_close_with_their_code(shop: Shop, frame: bytes, code: int) -> None:
    with live_socket(shop["ratings"]) as sock:
        sock.sendall(frame)
        received = b""
        while chunk := sock.recv(4096):
            received += chunk
    assert received.endswith(b"\x88\x02" + code.to_bytes(2, "big"))


def test_the_bot_counts_what_it_gets(shop: Shop) -> None:
    with running(
        "bot", 0, TARGET_URL=shop["page-v3"].url + "/productpage", RATE="50", REPORT_EVERY="0.5", http_proxy=""
    ) as bot:
        bot.until(lambda: len(bot.lines) >= 3, "two reports")
        code, _ = bot.terminate()
    assert code == 0
    assert " ok, 0 degraded, 0 failed; reviews v3:" in bot.lines[1]
    asked = int(bot.lines[2].split("] ")[1].split(" ")[0])
    assert 15 <= asked <= 35


def test_the_bot_counts_failures() -> None:
    with running("bot", 0, TARGET_URL=f"{DEAD}/productpage", RATE="50", REPORT_EVERY="0.3") as bot:
        bot.until(lambda: len(bot.lines) >= 2, "a report")
    assert " 0 ok, 0 degraded, " in bot.lines[1]
    assert "Connection refused" in bot.lines[1]


def test_the_stranger_tells_denied_from_let_in_from_broken(shop: Shop) -> None:
    with neighbour(answering(403, b"RBAC: access denied")) as closed:
        targets = f"{closed}/ratings/0 {shop['details'].url}/details/0 {DEAD}/x"
        with running("stranger", 0, TARGETS=targets, INTERVAL="0.1") as stranger:
            stranger.until(lambda: len(stranger.lines) >= 6, "two rounds")
            assert stranger.terminate()[0] == 0
    assert stranger.lines[0].endswith(f"#1 GET {closed}/ratings/0 -> DENIED 403 RBAC: access denied")
    assert "-> LET IN 200" in stranger.lines[1]
    assert "-> FAILED" in stranger.lines[2]
    assert "#2" in stranger.lines[3]
