"""What is spoken between sidecars and towards applications: HTTP/2 inside, WebSocket, gRPC, server-first, sniffing."""

from collections.abc import Iterator

import pytest
from local_mesh import LocalMesh
from shapes import client, echo, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

NS = "talk"
SNIFFED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: plain, namespace: talk}
spec:
  hosts: [plain]
  http:
  - match: [{uri: {prefix: /elsewhere}, port: 8000}]
    route: [{destination: {host: web, port: {number: 80}}}]
  - route: [{destination: {host: plain}}]
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    talk = namespace(NS)
    talk["metadata"]["annotations"] = {
        "tulle.dev/depth": "full"
    }  # what both sidecars parse; relayed: mesh/test_depth.py
    objects = [
        talk,
        client("caller", NS),
        echo("web", NS, "web", http=8000, h2c=8002, grpc=8003),
        service(
            "web",
            NS,
            {"app": "web"},
            port("http", 80, 8000),
            port("http2-raw", 82, 8002),
            port("grpc", 83, 8003),
            port("http-mixed", 84, 8003),
        ),
        # one endpoint of `half` has no sidecar
        echo("half", NS, "inside", http=8000),
        echo("half", NS, "bare", inject=False, http=8000),
        service("half", NS, {"app": "half"}, port("http", 80, 8000)),
        echo("mail", NS, "mail", banner=[2525, 2526]),
        service("mail", NS, {"app": "mail"}, port("tcp-smtp", 2525), port("sniffed", 2526)),
        echo("plain", NS, "plain", http=8000, tcp=9000),
        service("plain", NS, {"app": "plain"}, port("one", 8000), port("two", 9000)),
    ]
    with LocalMesh(manifest(*objects)) as mesh:
        yield mesh


def test_http_travels_as_http2_and_arrives_as_it_left(mesh: LocalMesh) -> None:
    answer = mesh.client("caller").http("web").first
    assert answer["body"]["protocol"] == "HTTP/1.1"
    log = mesh.logged("web", NS, reporter="destination", authority="web")
    assert log["protocol"] == "HTTP/2"
    assert mesh.logged("caller", NS, reporter="source", authority="web")["protocol"] == "HTTP/1.1"


def test_websocket(mesh: LocalMesh) -> None:
    found = mesh.client("caller").ask("websocket", host="web", port=80, lines=["a", "b"])
    assert found == {"outcome": "ok", "heard": ["web:a", "web:b"]}
    assert mesh.logged("web", NS, reporter="destination", path="/ws")["protocol"] == "HTTP/2"


@pytest.mark.parametrize("at", [83, 84], ids=["declared grpc", "declared http"])
def test_grpc(mesh: LocalMesh, at: int) -> None:
    found = mesh.client("caller").ask("grpc", host="web", port=at, n=5)
    assert found["outcome"] == "ok", found
    assert found["heard"] == [f"web:{number}" for number in range(5)]


def test_http2_that_is_not_grpc(mesh: LocalMesh) -> None:
    """Declared `http2` it stays HTTP/2; declared `http`, the application is spoken to in HTTP/1.1."""
    declared = mesh.client("caller").ask("h2c", host="web", port=82)
    assert declared == {"outcome": "ok", "body": "web over HTTP/2"}
    translated = mesh.client("caller").ask("h2c", host="web", port=80)
    assert translated["outcome"] == "ok", translated
    assert '"protocol": "HTTP/1.1"' in translated["body"]


def test_a_service_partly_outside_speaks_http1_to_all(mesh: LocalMesh) -> None:
    found = mesh.client("caller").http("half", n=40, keep=40)
    assert found.only("200 inside", "200 bare"), found.counts
    assert min(found.counts.values()) > 0
    assert len(found.counts) == 2
    log = mesh.logged("half", NS, reporter="destination", authority="half")
    assert log["protocol"] == "HTTP/1.1"
    assert log["downstream_peer"] == f"spiffe://cluster.local/ns/{NS}/sa/default", "mTLS where there is a sidecar"


def test_server_first(mesh: LocalMesh) -> None:
    """Declared, the greeting comes at once; undeclared, each side waits 0.2 s for a first byte of the client."""
    declared = mesh.client("caller").stream("mail", 2525, greets=True)
    assert declared["heard"] == ["220 mail ready", "mail:hello"], declared
    assert declared["first"] < 0.19, declared["first"]
    sniffed = mesh.client("caller").stream("mail", 2526, greets=True)
    assert sniffed["heard"] == ["220 mail ready", "mail:hello"], sniffed
    assert 0.19 < sniffed["first"] < 1.5, sniffed["first"]


def test_a_sniffed_port_is_http_or_tcp_by_its_first_bytes(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    found = caller.http("plain", 8000)
    assert found.only("200 plain"), found.counts
    log = mesh.logged("plain", NS, reporter="destination", path="/")
    assert log["response_code"] == 200
    assert caller.stream("plain", 9000)["heard"] == ["plain:hello"]
    mesh.apply(SNIFFED, "plain-routes.yaml")
    elsewhere = caller.http("plain", 8000, "/elsewhere")
    assert elsewhere.only("200 web"), elsewhere.counts
    any_host = caller.http("plain", 8000, authority="whatever.example.test")
    assert any_host.only("200 plain"), any_host.counts
    assert caller.stream("plain", 9000)["heard"] == ["plain:hello"]
