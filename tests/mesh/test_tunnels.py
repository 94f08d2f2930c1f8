"""Connections of a TCP port as streams of one connection: what they carry, who is let in, who counts them."""

import time
from collections.abc import Iterator

import pytest
from local_mesh import LocalMesh
from shapes import account, client, echo, manifest, namespace, port, service
from test_security import insider

pytestmark = pytest.mark.mesh

NS = "pipes"
HOST = f"db.{NS}.svc.cluster.local"
DRAIN = 5.0
AGE = 5
"""Seconds until what is new goes through another tunnel."""
ONLY_WRITER = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-writer, namespace: pipes}
spec:
  selector: {matchLabels: {app: db}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/pipes/sa/writer]}}]
"""
ONE_CONNECTION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: one, namespace: pipes}
spec:
  host: db
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: pipes}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    objects = [
        namespace(NS, annotations={"tulle.dev/depth": "l4"}),
        namespace("street", inject=False),
        account("writer", NS),
        client("reader", NS),
        client("writer", NS, runs_as="writer"),
        client("looker", NS, annotations={"tulle.dev/depth": "once", "tulle.dev/discovery": "full"}),
        client("passer-by", "street", inject=False),
        echo("db", NS, "db", tcp=[9000, 9003], banner=9001, http=8000),
        service(
            "db", NS, {"app": "db"}, port("tcp", 9000), port("tcp-greets", 9001), port("tcp-closed", 9002),
            port("tcp-guess", 9003), port("tcp-web", 8000),
        ),
        service("also", NS, {"app": "db"}, port("guess", 9003)),
        service("some", NS, {"version": "db"}, port("tcp", 8000)),
    ]  # fmt: skip
    with LocalMesh(manifest(*objects), settings={"maxConnectionAgeSeconds": AGE}) as mesh:
        yield mesh


def connections(mesh: LocalMesh, app: str, number: int) -> int:
    """Connections that a sidecar has made to the servers of a port."""
    (line,) = [
        one
        for one in mesh.admin(app, "/clusters", NS).splitlines()
        if one.startswith(f"outbound|{number}||{HOST}::") and "::cx_total::" in one
    ]
    return int(line.rpartition("::")[2])


def sent(mesh: LocalMesh, app: str, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Series of connections at a sidecar."""
    return [
        (have, value)
        for have, value in mesh.metrics(app, NS, f"istio_tcp_{name}_total")
        if labels.items() <= have.items()
    ]


def test_many_connections_are_streams_of_one(mesh: LocalMesh) -> None:
    reader = mesh.client("reader")
    found = reader.ask("streams", host="db", port=9000, n=1_100, lines=["a", "b"], seconds=0.2)
    assert found["counts"] == {"ok": 1_100}, found["counts"]
    assert {tuple(one["heard"]) for one in found["all"]} == {("db:a", "db:b")}
    assert connections(mesh, "reader", 9000) <= 4, "one or two for each worker"
    looker = mesh.client("looker")
    assert looker.ask("streams", host="db", port=9000, n=8, seconds=0.2)["counts"] == {"ok": 8}
    assert connections(mesh, "looker", 9000) == 8, "who was not asked to: a connection for each"


def test_servers_that_speak_first_and_clients_that_end_first(mesh: LocalMesh) -> None:
    reader = mesh.client("reader")
    greeted = reader.stream("db", 9001, greets=True)
    assert greeted["heard"] == ["220 db ready", "db:hello"]
    poured = reader.ask("pour", host="db", port=9000, n=20_000)
    assert poured == {"outcome": "ok", "lines": 20_000}


def test_tunnels_grow_old_and_what_is_open_stays(mesh: LocalMesh) -> None:
    reader = mesh.client("reader")
    with reader.talk("db", 9000) as talking:
        for _ in range(3):
            before = connections(mesh, "reader", 9000)
            time.sleep(AGE + 0.5)
            assert reader.stream("db", 9000)["outcome"] == "ok"
            assert connections(mesh, "reader", 9000) > before, "a new handshake"
    assert talking.answer["outcome"] == "ok"


def test_a_closed_port_ends_the_connection(mesh: LocalMesh) -> None:
    found = mesh.client("reader").stream("db", 9002, timeout=5)
    assert found["outcome"] in ("reset", "ended"), found
    line = mesh.logged("reader", NS, reporter="source", upstream_cluster=f"outbound|9002||{HOST}")
    assert "U" in line["response_flags"], line


def test_both_sides_count_connections_and_bytes(mesh: LocalMesh) -> None:
    before = sum(value for _, value in sent(mesh, "db", "connections_closed", connection_security_policy="mutual_tls"))
    assert mesh.client("writer").stream("db", 9000, lines=["x" * 99])["outcome"] == "ok"
    mine = {"destination_service_name": "db", "response_flags": "-"}
    mesh.wait_for(lambda: bool(sent(mesh, "writer", "connections_closed", **mine)), "the client's count")
    ((told, count),) = sent(mesh, "writer", "connections_opened", **mine)
    assert count == 1
    assert told["reporter"] == "source"
    assert told["connection_security_policy"] == "mutual_tls"
    assert told["destination_principal"] == f"spiffe://cluster.local/ns/{NS}/sa/default"
    assert told["destination_workload"] == "db-db"
    assert [value for _, value in sent(mesh, "writer", "received_bytes", **mine)] == [100]
    assert [value for _, value in sent(mesh, "writer", "sent_bytes", **mine)] == [103]
    theirs = {"source_principal": f"spiffe://cluster.local/ns/{NS}/sa/writer", "response_flags": "-"}
    mesh.wait_for(lambda: bool(sent(mesh, "db", "connections_closed", **theirs)), "the server's count")
    ((heard, count),) = sent(mesh, "db", "connections_opened", **theirs)
    assert count == 1
    assert heard["reporter"] == "destination"
    assert heard["connection_security_policy"] == "mutual_tls"
    assert heard["destination_service_name"] == "db"
    assert [value for _, value in sent(mesh, "db", "received_bytes", **theirs)] == [100]
    assert [value for _, value in sent(mesh, "db", "sent_bytes", **theirs)] == [103]
    after = sum(value for _, value in sent(mesh, "db", "connections_closed", connection_security_policy="mutual_tls"))
    assert after == before + 1


def test_who_may_not_is_refused_and_told_of(mesh: LocalMesh) -> None:
    reader, writer = mesh.client("reader"), mesh.client("writer")
    with reader.talk("db", 9000) as talking:
        time.sleep(0.5)
        mesh.apply(ONLY_WRITER, "writer.yaml")
        mesh.wait_for(lambda: reader.stream("db", 9000, timeout=3)["outcome"] != "ok", "the policy")
        time.sleep(DRAIN + 1)
    assert talking.answer["outcome"] != "ok", "what was open ends within the drain time"
    assert writer.stream("db", 9000)["outcome"] == "ok"
    refused = [one for one in mesh.log("db", NS) if one["connection_termination_details"]]
    mesh.delete("AuthorizationPolicy", "only-writer", "-n", NS)
    mesh.wait_for(lambda: reader.stream("db", 9000, timeout=3)["outcome"] == "ok", "the end of the policy")
    assert {one["downstream_peer"] for one in refused} == {f"spiffe://cluster.local/ns/{NS}/sa/default"}
    assert all(one["connection_termination_details"].startswith("rbac_access_denied") for one in refused)


def test_strict_comes_and_goes(mesh: LocalMesh) -> None:
    reader, stranger = mesh.client("reader"), mesh.client("passer-by")
    assert stranger.stream(f"db.{NS}", 9000)["outcome"] == "ok"
    mesh.apply(STRICT, "strict.yaml")
    mesh.wait_for(lambda: stranger.stream(f"db.{NS}", 9000, timeout=3)["outcome"] != "ok", "STRICT")
    for _ in range(5):
        assert reader.stream("db", 9000)["outcome"] == "ok"
    mesh.delete("PeerAuthentication", "strict", "-n", NS)
    mesh.wait_for(lambda: stranger.stream(f"db.{NS}", 9000, timeout=3)["outcome"] == "ok", "PERMISSIVE")
    assert reader.stream("db", 9000)["outcome"] == "ok"


def test_a_sidecar_is_replaced_under_load(mesh: LocalMesh) -> None:
    """New connections become streams of a connection to the new one; the old one says that it leaves."""
    with mesh.client("reader").load("db", 8000, rate=60, fresh=True) as load:
        time.sleep(1)
        mesh.tulle("restart", "sidecar", mesh.pod("db", NS), "-n", NS, timeout=90)
        time.sleep(1)
    assert load.outcome is not None
    assert load.outcome.only("200 db"), (load.outcome.counts, load.outcome.failures)
    assert connections(mesh, "reader", 8000) < 20, "streams"


def test_a_pod_without_a_sidecar_comes_and_goes_under_load(mesh: LocalMesh) -> None:
    """Then each connection is one again, to all of them."""
    bare = echo("bare", NS, "db", inject=False, http=8000)
    reader = mesh.client("reader")
    with reader.load("some", 8000, rate=60, fresh=True) as load:
        time.sleep(1)
        mesh.apply(manifest(bare), "bare.yaml")
        mesh.wait_for(lambda: bool(mesh.pods_of("bare", NS)), "the pod")
        time.sleep(DRAIN + 1)
        mesh.delete("Deployment", "bare-db", "-n", NS)
        time.sleep(DRAIN + 1)
    assert load.outcome is not None
    found = load.outcome.counts
    assert found["200 db"] > 600
    ended = [one for one in load.outcome.failures if "kept=True" in one]
    assert found.total() - found["200 db"] == len(ended), "kept ones end within the drain time, as their chain does"


def test_a_port_that_may_be_http_has_connections(mesh: LocalMesh) -> None:
    """Another Service leaves it to be sniffed, so the server's sidecar may have to parse it."""
    reader = mesh.client("reader")
    assert reader.ask("streams", host="db", port=9003, n=4, seconds=0.1)["counts"] == {"ok": 4}
    assert connections(mesh, "reader", 9003) == 4


def test_limits_of_connections_count_connections(mesh: LocalMesh) -> None:
    reader = mesh.client("reader")
    mesh.apply(ONE_CONNECTION, "one.yaml")
    found = reader.ask("streams", host="db", port=9000, n=4, seconds=0.5, timeout=3)["counts"]
    mesh.delete("DestinationRule", "one", "-n", NS)
    assert found["ok"] == 1, found
    assert reader.ask("streams", host="db", port=9000, n=4, seconds=0.1)["counts"] == {"ok": 4}


def test_who_offers_streams_gets_around_nothing(mesh: LocalMesh) -> None:
    """Who offers streams at a port that may be HTTP, or has no certificate of the mesh, gets nowhere."""
    inside = insider(mesh, f"spiffe://cluster.local/ns/{NS}/sa/default")
    job = {"host": mesh.address("db", NS), "tls": True, "sni": HOST, "alpn": ["tulle-tunnel"], "timeout": 3}
    stranger = mesh.client("passer-by")
    own = {"certificate": inside, "key": inside}
    assert stranger.ask("h2c", **{**job, **own, "port": 9003})["outcome"] != "ok"
    assert stranger.ask("stream", **{**job, "port": 9000})["outcome"] != "ok", "without a certificate"
    answered = stranger.ask("h2c", **{**job, **own, "port": 9000})
    assert answered == {"outcome": "ok", "body": ""}, "a request is no stream: no route"
