"""Cases 01 to 04: hosts, certificates, ports and matches at the ingress gateway."""

from collections.abc import Iterator

import pytest
from case_sets import Cases
from certificates import self_signed, serial, tls_secret
from clients import Client
from local_mesh import LocalMesh
from shapes import INGRESS, echo, ingress, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

OTHER = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: other, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [other.example.test]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other, namespace: default}
spec:
  gateways: [other]
  hosts: [other.example.test]
  http:
  - route:
    - destination: {host: APP1}
"""


@pytest.fixture(scope="module")
def mesh(cases: Cases) -> Iterator[LocalMesh]:
    app = cases.app
    workloads = [
        echo(app, "default", app, http=8000),
        echo(f"{app}1", "default", f"{app}1", http=8000),
        echo(f"{app}2", "default", f"{app}2", http=8000),
        echo(f"{app}2-test", "default", f"{app}2-test", http=8000),
    ]
    services = [
        service(app, "default", {"app": app}, port("http", 80, 8000), port("http-secure", 443, 8000)),
        *(
            service(name, "default", {"app": name}, port("http", 80, 8000))
            for name in (f"{app}1", f"{app}2", f"{app}2-test")
        ),
    ]
    objects = (namespace("default"), *ingress(), *workloads, *services)
    with LocalMesh(manifest(*objects), OTHER.replace("APP1", f"{app}1")) as mesh:
        yield mesh


def line_of(cases: Cases, number: str, text: str) -> int:
    lines = cases.path(number).read_text().splitlines()
    return next(at for at, line in enumerate(lines, 1) if text in line)


def test_01_and_04_route_by_host_path_and_header(mesh: LocalMesh, cases: Cases) -> None:
    mesh.apply(cases.path("printed/01"))
    said = mesh.apply(cases.path("printed/04"))
    at, app, outside = mesh.gateway(80), cases.app, mesh.outside

    def answer(path: str, host: str = cases.host, **headers: str) -> str:
        outcome = outside.http("127.0.0.1", at, path, authority=host, headers=headers)
        return next(iter(outcome.counts))

    assert answer("/app1") == f"200 {app}1"
    assert answer("/app1/more?a=b") == f"200 {app}1"
    assert answer("/app2") == f"200 {app}2"
    assert answer("/", test="true") == f"200 {app}2-test"
    assert answer("/", test="yes") == "404"
    assert answer("/") == "404"
    assert answer("/app1", host="unknown.example.test") == "404"
    assert answer("/", host="other.example.test") == f"200 {app}1"
    line = line_of(cases, "printed/04", "exact: true")
    told = said.stdout + said.stderr
    assert "TUL0204" in told, told
    assert f"{cases.path('printed/04').name}:{line}" in told, told
    assert '"true"' in told


def test_03_routes_only_what_came_in_on_443(mesh: LocalMesh, cases: Cases) -> None:
    mesh.apply(cases.path("printed/01"))
    mesh.apply(cases.path("printed/03"))
    plain = mesh.outside.http("127.0.0.1", mesh.gateway(80), authority=cases.host)
    assert plain.only("404"), plain.counts
    certificate, key = self_signed(cases.host)
    mesh.apply(manifest(tls_secret(cases.secret, INGRESS[0], certificate, key)), "secret.yaml")
    mesh.apply(cases.path("printed/02"))
    secure = https(mesh.outside, mesh, cases)
    assert secure["status"] == 200
    assert secure["body"]["version"] == cases.app
    cluster = f"outbound|443||{cases.app}.default.svc.cluster.local"
    mesh.logged(INGRESS[1], INGRESS[0], authority=cases.host, response_code=200, upstream_cluster=cluster)


def https(client: Client, mesh: LocalMesh, cases: Cases) -> dict[str, object]:
    """One request over TLS on a new connection."""
    return client.http("127.0.0.1", mesh.gateway(443), authority=cases.host, tls=True, sni=cases.host, fresh=True).first


def served(mesh: LocalMesh, cases: Cases) -> dict[str, object]:
    """Which certificate is served, and how the handshake went."""
    request = f"GET / HTTP/1.1\r\nhost: {cases.host}\r\n\r"
    return mesh.outside.stream("127.0.0.1", mesh.gateway(443), tls=True, sni=cases.host, lines=[request], timeout=3)


def test_02_serves_the_secret_and_nothing_without_it(mesh: LocalMesh, cases: Cases) -> None:
    mesh.apply(cases.path("printed/03"))
    mesh.tulle("delete", "secret", cases.secret, "-n", INGRESS[0], check=False)
    said = mesh.apply(cases.path("printed/02"), check=False)
    told = said.stdout + said.stderr
    assert "TUL0722" in told, told
    assert cases.secret in told
    assert served(mesh, cases)["certificate"] is None
    other = mesh.outside.http("127.0.0.1", mesh.gateway(80), authority="other.example.test")
    assert other.only(f"200 {cases.app}1"), other.counts

    certificate, key = self_signed(cases.host)
    mesh.apply(manifest(tls_secret(cases.secret, INGRESS[0], certificate, key)), "secret.yaml")
    assert https(mesh.outside, mesh, cases)["status"] == 200
    found = served(mesh, cases)
    assert found["outcome"] == "ok", found
    assert serial(str(found["certificate"])) == serial(certificate)


def test_02_a_replaced_secret_drops_nothing(mesh: LocalMesh, cases: Cases) -> None:
    mesh.apply(cases.path("printed/02"))
    mesh.apply(cases.path("printed/03"))
    certificate, key = self_signed(cases.host)
    mesh.apply(manifest(tls_secret(cases.secret, INGRESS[0], certificate, key)), "secret.yaml")
    secure = {"authority": cases.host, "tls": True, "sni": cases.host}
    serials = [serial(certificate)]
    with mesh.outside.load("127.0.0.1", mesh.gateway(443), rate=60, **secure) as load:
        for _ in range(3):
            certificate, key = self_signed(cases.host)
            mesh.apply(manifest(tls_secret(cases.secret, INGRESS[0], certificate, key)), "secret.yaml")
            serials.append(serial(str(served(mesh, cases)["certificate"])))
            assert serials[-1] == serial(certificate)
    assert len(set(serials)) == 4
    assert load.outcome is not None
    assert load.outcome.only(f"200 {cases.app}"), (load.outcome.counts, load.outcome.failures)
