"""Each request parsed once: what either side parses, who counts it, and policies that come and go under load."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from local_mesh import LocalMesh
from shapes import account, client, echo, ingress, manifest, namespace, port, service, web
from test_security import insider

pytestmark = pytest.mark.mesh

NS = "lean"
DRAIN = 5.0
"""Seconds that a sidecar gives to connections whose chain is gone (local/envoys.py)."""
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
NO_RETRIES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bare, namespace: lean}
spec:
  hosts: [bare]
  http:
  - route: [{destination: {host: bare}}]
    retries: {attempts: 0}
"""
ROUTED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pipe, namespace: bytes}
spec:
  hosts: [pipe]
  http:
  - match: [{uri: {prefix: /tea}}]
    directResponse: {status: 418}
  - route: [{destination: {host: pipe}}]
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: lean}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    objects = [
        *ingress(),
        namespace(NS),
        namespace("whole", annotations={"tulle.dev/depth": "full"}),
        namespace("bytes", annotations={"tulle.dev/depth": "l4"}),
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
        service("bare", NS, {"app": "web"}, port("http", 80, 8000)),
        *web("desk", "whole", "desk"),
        *web("pipe", "bytes", "pipe"),
    ]  # fmt: skip
    with LocalMesh(manifest(*objects), NO_RETRIES, settings={"depth": "once"}) as mesh:
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


def test_a_policy_that_needs_http_comes_and_goes_under_load(mesh: LocalMesh) -> None:
    """Nothing is tried again at `bare`, and nothing is lost; what is denied is denied with a 403."""
    caller = mesh.client("caller")
    with (
        caller.load("bare", rate=100) as kept_trying,
        caller.load("bare", rate=50, method="POST", body="x" * 1000) as posting,
        caller.load("bare", rate=50, path="/delay/0.2") as other,
    ):
        for _ in range(2):
            time.sleep(1)
            mesh.apply(RULE, "rule.yaml")
            denied = caller.http("web", path="/secret/1", n=20, fresh=True)
            assert denied.only("403"), denied.counts
            time.sleep(DRAIN + 1)
            mesh.delete("AuthorizationPolicy", "no-secrets", "-n", NS)
            caller.until("200 web", "web", path="/secret/1")
            time.sleep(DRAIN + 1)
    for load in (kept_trying, posting, other):
        assert load.outcome is not None
        assert load.outcome.only("200 web"), (load.outcome.counts, load.outcome.failures)


def come_as_bytes(mesh: LocalMesh, **job: Any) -> dict[str, Any]:
    """Arguments to call `web` with a certificate of the mesh, as one whose bytes are to be relayed."""
    inside = insider(mesh, f"spiffe://cluster.local/ns/{NS}/sa/default")
    return {
        "host": mesh.address("web", NS),
        "port": 8000,
        "tls": True,
        "sni": f"outbound_.80_._.web.{NS}.svc.cluster.local",
        "alpn": ["istio"],
        "certificate": inside,
        "key": inside,
        **job,
    }


def test_nobody_gets_around_a_policy_by_what_he_offers(mesh: LocalMesh) -> None:
    """A kept connection that is relayed ends within the drain time; a new one is parsed, whatever it offers."""
    client = mesh.client("passer-by")
    job = come_as_bytes(mesh, path="/secret/1")
    assert client.ask("http", **job)["counts"] == {"200 web": 1}, "relayed: nothing forbids it yet"
    began = time.monotonic()
    with client.load(**{**job, "rate": 40, "timeout": 3}) as load:
        time.sleep(1)
        mesh.apply(RULE, "rule.yaml")
        enforced = time.monotonic() - began
        for alpn in (
            ["istio"],
            ["istio-peer-exchange"],
            ["istio", "http/1.1"],
            ["http/1.1"],
            ["istio-http/1.1", "istio"],
        ):
            found = client.ask("http", **{**job, "alpn": alpn, "fresh": True})["counts"]
            assert set(found) == {"403"} or (alpn == ["http/1.1"] and set(found) == {"reset"}), (alpn, found)
        time.sleep(DRAIN + 2)
    assert load.outcome is not None
    assert set(load.outcome.counts) <= {"200 web", "403", "reset"}
    kept = load.outcome.last_kept
    print(
        f"enforced after {enforced:.1f} s; last seen on kept connections: {kept}; {load.outcome.counts}, {load.outcome.failures}"
    )
    assert kept["200 web"] - enforced < DRAIN + 1.0
    assert kept["403"] > kept["200 web"]
    after = client.ask("http", **{**job, "n": 5})["counts"]
    assert after == {"403": 5}, after
    mesh.delete("AuthorizationPolicy", "no-secrets", "-n", NS)


def test_full_has_both_reporters(mesh: LocalMesh) -> None:
    found = mesh.client("watcher").http("desk", n=10)
    assert found.only("200 desk"), found.counts
    ((_, told),) = requests_at(mesh, "watcher", "whole", destination_service_name="desk", response_code="200")
    ((heard_labels, heard),) = requests_at(mesh, "desk", "whole", reporter="destination")
    assert (told, heard) == (10, 10)
    assert heard_labels["source_workload"] == "watcher"


def test_sides_of_different_depth_understand_each_other(mesh: LocalMesh) -> None:
    for name in ("caller", "watcher", "piper"):
        for host, ns, version in (("web", NS, "web"), ("desk", "whole", "desk"), ("pipe", "bytes", "pipe")):
            found = mesh.client(name).http(f"{host}.{ns}", n=10)
            assert found.only(f"200 {version}"), (name, host, found.counts, found.failures)
    for at in (82, 83, 84):
        word = "h2c" if at == 82 else "grpc"
        assert mesh.client("piper").ask(word, host=f"web.{NS}", port=at)["outcome"] == "ok", at
    found = mesh.client("passer-by").http(f"web.{NS}", n=5)
    assert found.only("200 web"), found.counts
    assert requests_at(mesh, "web", NS, reporter="destination", connection_security_policy="none"), (
        "plain text is parsed"
    )


def test_l4_relays_on_both_sides_until_something_asks_for_requests(mesh: LocalMesh) -> None:
    piper = mesh.client("piper")
    assert piper.http("pipe", n=5, fresh=True).only("200 pipe")
    assert not requests_at(mesh, "piper", "bytes", destination_service_name="pipe")
    opened = [
        have
        for have, value in mesh.metrics("piper", "bytes", "istio_tcp_connections_opened_total")
        if have["destination_service_name"] == "pipe" and value >= 5
    ]
    assert [have["destination_workload"] for have in opened] == ["pipe-pipe"], opened
    mesh.apply(ROUTED, "routed.yaml")
    found = piper.until("418", "pipe", path="/tea", fresh=True)
    assert found.only("418")
    assert requests_at(mesh, "piper", "bytes", response_code="418"), "the route made the client parse"
    mesh.apply(RULE, "rule.yaml")
    denied = piper.http(f"web.{NS}", path="/secret/1", n=5, fresh=True)
    assert denied.only("403"), denied.counts
    for word, at in (("h2c", 82), ("grpc", 83)):  # bytes that turn out to be HTTP/2, at a chain that parses
        assert piper.ask(word, host=f"web.{NS}", port=at)["outcome"] == "ok", word
    mesh.delete("AuthorizationPolicy", "no-secrets", "-n", NS)


def test_strict_comes_and_goes_under_load(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    with caller.load("bare", rate=60, path="/delay/0.3") as load:  # some twenty are under way at any time
        time.sleep(1)
        mesh.apply(STRICT, "strict.yaml")
        assert mesh.client("passer-by").http(f"web.{NS}", n=3, fresh=True).only("reset")
        time.sleep(DRAIN + 1)
        mesh.delete("PeerAuthentication", "strict", "-n", NS)
        time.sleep(DRAIN + 1)
    assert load.outcome is not None
    assert load.outcome.only("200 web"), (load.outcome.counts, load.outcome.failures)


def test_stat_and_edges_count_each_request_once(mesh: LocalMesh) -> None:
    with mesh.client("caller").load("web", rate=50), mesh.client("watcher").load("desk.whole", rate=50):
        rows = json.loads(mesh.tulle("stat", "deploy", "-A", "-o", "json").stdout)
        edges = json.loads(mesh.tulle("edges", "-A", "-o", "json").stdout)
    for name, ns in (("web-web", NS), ("desk-desk", "whole")):
        (row,) = [one for one in rows if (one["name"], one["namespace"]) == (name, ns)]
        assert 40 < row["requestsPerSecond"] < 60, row
        assert row["successRate"] == 1
        (edge,) = [one for one in edges if one["destination"]["workload"] == name]
        assert 40 < edge["requestsPerSecond"] < 60, edge
        assert edge["secured"]


def test_what_raised_the_depth_is_told(mesh: LocalMesh) -> None:
    assert (
        "depth: once"
        in mesh.tulle("explain", mesh.pod("web", NS), "listener", "virtualInbound", "-n", NS, "-o", "yaml").stdout
    )
    mesh.apply(RULE, "rule.yaml")
    told = mesh.tulle("explain", mesh.pod("web", NS), "listener", "virtualInbound", "-n", NS, "-o", "yaml").stdout
    assert "raised_by" in told
    assert "no-secrets" in told
    mesh.delete("AuthorizationPolicy", "no-secrets", "-n", NS)
