"""Cases 09 and 10: a circuit breaker for a host outside the mesh, and that host by DNS and SNI; each alone and both."""

from collections.abc import Iterator

import pytest
from case_sets import Cases
from certificates import self_signed, serial
from clients import Client
from local_mesh import LocalMesh
from names import World, world
from shapes import client, echo, manifest, namespace

pytestmark = pytest.mark.mesh


class Outside:
    """A mesh that refuses unknown hosts, a world that knows some, and a machine out there: a pod without a sidecar."""

    def __init__(self, mesh: LocalMesh, world: World, certificate: bytes) -> None:
        self.mesh = mesh
        self.world = world
        self.certificate = certificate

    @property
    def caller(self) -> Client:
        """In the namespace of the circuit breaker."""
        return self.mesh.client("caller")


@pytest.fixture(scope="module")
def outside(cases: Cases) -> Iterator[Outside]:
    certificate, key = self_signed(cases.external)
    with world() as names:
        mesh = LocalMesh(settings={"registryOnly": True}, resolver=names.address)
        place = mesh.installed.programs / mesh.name
        for name, content in (("cert.pem", certificate), ("key.pem", key)):
            mesh.installed.file_for_user(place / name, content)
        tls = f"443:{place}/cert.pem:{place}/key.pem"
        mesh.add(
            manifest(
                namespace(cases.breaker_namespace),
                namespace("world", inject=False),
                client("caller", cases.breaker_namespace),
                echo("there", "world", "there", inject=False, http=80, tls=tls, tcp=7000),
            )
        )
        with mesh:
            for host in (cases.external, "unlisted.example.test"):
                names.names[host] = mesh.address("there", "world")
            yield Outside(mesh, names, certificate)


def remove(outside: Outside, cases: Cases) -> None:
    """Neither case applies."""
    for kind, name, ns in (
        ("serviceentry", "over-http", "default"),
        ("serviceentry", "paypal" if cases.name == "verbatim" else "pay", "default"),
        (
            "destinationrule",
            "paypal-circuit-breaker" if cases.name == "verbatim" else "pay-breaker",
            cases.breaker_namespace,
        ),
    ):
        outside.mesh.tulle("delete", kind, name, "-n", ns, check=False)


def tls(outside: Outside, host: str, **job: object) -> dict[str, object]:
    """A TLS connection to a host, by the name in DNS and the same SNI."""
    lines = [f"GET / HTTP/1.1\r\nhost: {host}\r\n\r"]
    return outside.caller.stream(host, 443, tls=True, sni=host, lines=lines, timeout=5, **job)


def test_10_is_reached_by_dns_and_sni_and_others_are_not(outside: Outside, cases: Cases) -> None:
    remove(outside, cases)
    assert tls(outside, cases.external)["outcome"] != "ok"
    outside.mesh.apply(cases.path("printed/10"))
    found = tls(outside, cases.external)
    assert found["outcome"] == "ok", found
    assert serial(str(found["certificate"])) == serial(outside.certificate)
    assert cases.external in outside.world.asked
    refused = tls(outside, "unlisted.example.test")
    assert refused["outcome"] != "ok", refused
    by_address = outside.caller.http(outside.mesh.address("there", "world"), 80, n=3, fresh=True)
    assert not any(outcome.startswith("200") for outcome in by_address.counts), by_address.counts
    ns = cases.breaker_namespace
    opened = [
        (labels, value)
        for labels, value in outside.mesh.metrics("caller", ns, "istio_tcp_connections_opened_total")
        if labels["destination_service"] == cases.external
    ]
    assert opened, list(outside.mesh.metrics("caller", ns, "istio_tcp_connections_opened_total"))
    assert opened[0][0]["reporter"] == "source"
    assert opened[0][0]["destination_service_name"] == cases.external
    cluster = f"outbound|443||{cases.external}"
    assert outside.mesh.logged("caller", ns, upstream_cluster=cluster)["response_flags"] == "-"
    # Whoever found the address elsewhere is known by SNI; the address alone opens nothing.
    there = outside.mesh.address("there", "world")
    by_sni = tls(outside, cases.external, address=there)
    assert by_sni["outcome"] == "ok", by_sni
    assert outside.mesh.logged("caller", ns, requested_server_name=cases.external)["upstream_cluster"] == cluster
    by_other = tls(outside, "unlisted.example.test", address=there)
    assert by_other["outcome"] != "ok", by_other


OVER_HTTP = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: over-http, namespace: default}
spec:
  hosts: [HOST]
  location: MESH_EXTERNAL
  ports:
  - {number: 80, name: http, protocol: HTTP}
  resolution: DNS
"""


def test_09_limits_and_ejects_over_http(outside: Outside, cases: Cases) -> None:
    remove(outside, cases)
    outside.mesh.apply(OVER_HTTP.replace("HOST", cases.external), "over-http.yaml")
    said = outside.mesh.apply(cases.path("printed/09"))
    told = said.stdout + said.stderr
    assert "TUL0205" in told, told
    assert "consecutiveErrors" in told
    caller, host = outside.caller, cases.external
    few = caller.http(host, n=40, concurrency=1, keep=40)
    assert few.only("200 there"), few.counts
    assert max(answer["body"]["request"] for answer in few.answers) == 2
    not_counted = caller.http(host, path="/status/500", n=4)
    assert not_counted.only("500 there"), "gateway errors count, others do not (Istio's conversion)"
    twice = caller.http(host, path="/status/502", n=2)
    assert twice.only("502 there"), twice.counts
    ejected = caller.http(host, n=5)
    assert ejected.only("503"), ejected.counts
    assert outside.mesh.logged("caller", cases.breaker_namespace, response_flags="UH", authority=host)
    # A cluster made anew has ejected nobody. Refused requests count as errors of the host, so this comes last.
    remove(outside, cases)
    outside.mesh.apply(OVER_HTTP.replace("HOST", cases.external), "over-http.yaml")
    outside.mesh.apply(cases.path("printed/09"))
    caller.until("200 there", host)
    # One after the other: while its connection is being opened a request counts as pending, too.
    crowd = caller.http(host, path="/delay/4", n=12, concurrency=12, apart=0.2, timeout=20)
    assert crowd.counts == {"200 there": 7, "503": 5}, crowd.counts
    assert outside.mesh.logged("caller", cases.breaker_namespace, response_flags="UO", authority=host)


def test_09_with_10_hold_together(outside: Outside, cases: Cases) -> None:
    remove(outside, cases)
    outside.mesh.apply(cases.path("printed/10"))
    outside.mesh.apply(cases.path("printed/09"))
    job = {
        "tls": True,
        "sni": cases.external,
        "lines": [f"GET / HTTP/1.1\r\nhost: {cases.external}\r\n\r"],
        "timeout": 5,
    }
    # One after the other: 2 that wait for their connection are the other limit.
    crowd = outside.caller.ask("streams", host=cases.external, port=443, n=9, seconds=2.0, apart=0.1, **job)
    assert crowd["counts"].pop("ok") == 5, crowd
    assert sum(crowd["counts"].values()) == 4
    log = outside.mesh.logged("caller", cases.breaker_namespace, response_flags="UO")
    assert log["upstream_cluster"] == f"outbound|443||{cases.external}"
    alone = tls(outside, cases.external)
    assert alone["outcome"] == "ok", alone
