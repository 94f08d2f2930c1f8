"""Each request parsed once: what either side parses, who counts it, and policies that come and go under load."""

from collections.abc import Iterator
from typing import Any

import pytest
from local_mesh import LocalMesh
from shapes import account, client, echo, ingress, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

NS = "lean"
RULE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: lean}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - to:
    - operation: {paths: ["/secret*"]}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: lean}
spec: {mtls: {mode: STRICT}}
"""


def deep(name: str, depth: str) -> dict[str, Any]:
    """A namespace that asks for a depth."""
    found = namespace(name)
    found["metadata"]["annotations"] = {"tulle.dev/depth": depth}
    return found


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    objects = [
        *ingress(),
        namespace(NS),
        deep("whole", "full"),
        deep("bytes", "l4"),
        namespace("street", inject=False),
        account("web", NS),
        client("caller", NS),
        client("watcher", "whole"),
        client("piper", "bytes"),
        client("passer-by", "street", inject=False),
        echo("web", NS, "web", runs_as="web", http=8000, h2c=8002, grpc=8003),
        service(
            "web", NS, {"app": "web"}, port("http", 80, 8000), port("http2-raw", 82, 8002), port("grpc", 83, 8003),
            port("http-mixed", 84, 8003),
        ),
        echo("desk", "whole", "desk", http=8000),
        service("desk", "whole", {"app": "desk"}, port("http", 80, 8000)),
        echo("pipe", "bytes", "pipe", http=8000),
        service("pipe", "bytes", {"app": "pipe"}, port("http", 80, 8000)),
    ]  # fmt: skip
    with LocalMesh(manifest(*objects), settings={"depth": "once"}) as mesh:
        yield mesh


def requests_at(mesh: LocalMesh, app: str, ns: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Series of requests at a sidecar that have these labels."""
    found = mesh.metrics(app, ns)
    return [(have, value) for have, value in found if all(have.get(name) == value for name, value in labels.items())]


def test_http_is_parsed_by_the_client_and_relayed_by_the_server(mesh: LocalMesh) -> None:
    forged = {"x-tulle-peer": "principal=x;workload=forged;"}
    found = mesh.client("caller").http("web", n=20, headers=forged)
    assert found.only("200 web"), found.counts
    assert "x-tulle-peer" not in found.first["body"]["headers"]
    line = mesh.logged("web", NS, reporter="destination", downstream_peer=f"spiffe://cluster.local/ns/{NS}/sa/default")
    assert "method" not in line, "the server relayed"
    ((labels, count),) = requests_at(mesh, "caller", NS, destination_service_name="web", response_code="200")
    assert count == 20
    assert labels["destination_workload"] == "web-web"
    assert labels["destination_principal"] == f"spiffe://cluster.local/ns/{NS}/sa/web"
    assert labels["source_principal"] == f"spiffe://cluster.local/ns/{NS}/sa/default"
    assert labels["connection_security_policy"] == "mutual_tls"
    assert not requests_at(mesh, "web", NS, connection_security_policy="mutual_tls")
    opened = list(mesh.metrics("web", NS, "istio_tcp_connections_opened_total"))
    assert any(have["connection_security_policy"] == "mutual_tls" and value for have, value in opened), opened


def test_http2_grpc_and_websocket_arrive_as_they_left(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    assert caller.ask("h2c", host="web", port=82) == {"outcome": "ok", "body": "web over HTTP/2"}
    for at in (83, 84):
        assert caller.ask("grpc", host="web", port=at, n=5)["outcome"] == "ok"
    assert caller.ask("websocket", host="web", port=80, lines=["a"])["heard"] == ["web:a"]
