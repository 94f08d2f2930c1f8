"""Bookinfo, its manifests unchanged, over two nodes: what goes over the wire between them, who gets which version, what the gateway
serves, who is denied, what a real Prometheus reads, and that nothing of it stays.
"""

import base64
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from kubelab.cluster import Cluster
from mesh_parts import PATIENCE_S, caller, curl, listing, pods_of, space, tulle, until
from scraping import Prometheus, prometheus
from sniffing import Segment, segments, sniffed

pytestmark = [pytest.mark.cluster, pytest.mark.long]

EXAMPLE = Path(str(files("tulle.examples.bookinfo")))
MANIFESTS = ("bookinfo.yaml", "clients.yaml", "gateway.yaml", "routing.yaml", "security.yaml")
SPACES = ("bookinfo", "istio-system", "outside")
INSTALL = ("--profile=minimal", "--set=image.tag=dev", "--yes")
READY_S = 60.0
"""From `tulle install` to ready, images present: what is promised."""
HOST = "shop.example"
SNIFF_S = 15.0
SECURE = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: secure, namespace: bookinfo}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 443, name: https, protocol: HTTPS}}
    tls: {{mode: SIMPLE, credentialName: shop}}
    hosts: ["{HOST}"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: secure, namespace: bookinfo}}
spec:
  hosts: ["{HOST}"]
  gateways: [secure]
  http: [{{route: [{{destination: {{host: productpage, port: {{number: 9080}}}}}}]}}]
"""
LABELS = {
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "response_flags",
    "grpc_response_status",
    "connection_security_policy",
}
"""Of Istio's request metrics (Istio, "Istio Standard Metrics"), with what its telemetry adds: canonical names and clusters."""
METRICS = (
    "istio_requests_total",
    "istio_request_duration_milliseconds_bucket",
    "istio_request_duration_milliseconds_sum",
    "istio_request_duration_milliseconds_count",
    "istio_request_bytes_bucket",
    "istio_response_bytes_bucket",
)
OF_THE_SCRAPE = {"__name__", "instance", "job", "namespace", "pod_name"}


@pytest.fixture(scope="module")
def bare(two_nodes: Cluster) -> Cluster:
    two_nodes.load("control-plane", "proxy", "capture", "bookinfo", "test")
    return two_nodes


@pytest.fixture(scope="module")
def before(bare: Cluster) -> set[str]:
    return listing(bare)


@pytest.fixture(scope="module")
def mesh(bare: Cluster, before: set[str]) -> Iterator[Cluster]:
    began = time.monotonic()
    said = tulle(bare, "install", *INSTALL, f"--wait={PATIENCE_S:.0f}s").stderr
    took = time.monotonic() - began
    print(f"\ntulle install, profile minimal, 2 replicas, 2 nodes, images present: ready after {took:.1f} s\n{said}")
    try:
        assert took < READY_S
        for name in MANIFESTS:
            bare.apply((EXAMPLE / name).read_text())
        space(bare, "outside")
        for number in (1, 2):
            caller(bare, "outside", f"outsider-{number}", nodeName=f"node{number}")
        for place in ("bookinfo", "istio-system"):
            bare.wait("--for=condition=Available", "deploy", "--all", "-n", place, limit_s=PATIENCE_S)
        yield bare
    finally:
        bare.kubectl("delete", "ns", *SPACES, "--ignore-not-found", limit_s=180)
        if any(one.startswith("Deployment tulle-system/") for one in listing(bare)):
            tulle(bare, "uninstall", "--purge", "--yes", f"--wait={PATIENCE_S:.0f}s")


def test_it_is_on_both_nodes(mesh: Cluster) -> None:
    for place in ("bookinfo", "tulle-system"):
        nodes = Counter(one["spec"]["nodeName"] for one in pods_of(mesh, place))
        assert set(nodes) == {"node1", "node2"}, f"{place}: {nodes}"
    for pod in pods_of(mesh, "bookinfo"):
        beside = [one["name"] for one in pod["spec"]["initContainers"]]
        assert beside == ["tulle-capture", "istio-proxy"]
        assert len(pod["spec"]["containers"]) == 1, "one more container, and no agent"


def test_nobody_can_read_what_pods_say_to_each_other(mesh: Cluster, tmp_path: Path) -> None:
    """On the bridge between the nodes. Two pods outside the mesh show that the capture would see it."""
    until("readers are served", lambda: "0 failed" in logs(mesh, "bot") or None)
    ours = addresses(mesh, "bookinfo") | addresses(mesh, "istio-system")
    outside = addresses(mesh, "outside")
    mesh.kubectl("exec", "-n", "outside", "outsider-1", "--", "httpd", "-p", "8080", "-h", "/var/www")
    server = next(one for one in pods_of(mesh, "outside") if one["metadata"]["name"] == "outsider-1")
    file = tmp_path / "bridge.pcap"
    with sniffed(mesh, file):
        end = time.monotonic() + SNIFF_S
        while time.monotonic() < end:
            mesh.kubectl(
                "exec", "-n", "outside", "outsider-2", "--", "curl", "-s", f"http://{server['status']['podIP']}:8080/"
            )
            time.sleep(1)
    seen = segments(file)
    inside = [one for one in seen if one.source in ours and one.target in ours]
    legible = [one for one in inside if one.is_http]
    control = [one for one in seen if {one.source, one.target} <= outside and one.is_http]
    told = (
        f"\n{len(seen)} segments on the bridge in {SNIFF_S:.0f} s; between pods of the mesh {len(inside)}, of them"
        f" {sum(one.is_tls for one in inside)} begin a TLS record and {len(legible)} are HTTP;"
        f" between pods outside {len(control)} are HTTP"
    )
    print(told)
    assert len(control) >= 10, told
    assert sum(one.is_tls for one in inside) >= 100, told
    assert not legible, shown(legible)
    pairs = {(one.source, one.target) for one in inside if one.is_tls}
    assert len(pairs) >= 4, f"several services talk across: {pairs}"


def addresses(mesh: Cluster, namespace: str) -> set[str]:
    return {one["status"]["podIP"] for one in pods_of(mesh, namespace)}


def shown(legible: list[Segment]) -> str:
    return "\n".join(
        f"{one.source}:{one.source_port} > {one.target}:{one.target_port} {one.payload[:80]!r}" for one in legible[:5]
    )


def logs(mesh: Cluster, app: str, since: str = "20s") -> str:
    return mesh.kubectl("logs", "-n", "bookinfo", f"deploy/{app}-v1", "-c", app, f"--since={since}")


def test_strict_refuses_the_neighbour(mesh: Cluster) -> None:
    [details] = pods_of(mesh, "bookinfo", "app=details")
    other = "outsider-2" if details["spec"]["nodeName"] == "node1" else "outsider-1"
    code, said = curl(mesh, "outside", f"http://{details['status']['podIP']}:9080/details/0", pod=other)
    assert code in (52, 56), said


@pytest.fixture(scope="module")
def gateway(mesh: Cluster) -> str:
    def address() -> str | None:
        service = mesh.get("svc", "istio-ingressgateway", "-n", "istio-system")
        ingress = service["status"].get("loadBalancer", {}).get("ingress") or [{}]
        return str(ingress[0].get("ip") or "") or None

    at = until("an address", address)
    until("a page", lambda: asked(f"http://{at}/productpage")[0] == 200)
    return at


def asked(url: str, *words: str) -> tuple[int, str]:
    """Status and what reviews wrote the page, from the machine outside the cluster."""
    line = ["curl", "-sS", "-m", "10", "-D", "-", "-o", "/dev/null", *words, url]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=30)
    status = re.match(r"HTTP/\S+ (\d+)", done.stdout)
    version = re.search(r"x-reviews-version: (\S+)", done.stdout, re.IGNORECASE)
    return int(status[1]) if status else 0, version[1] if version else ""


def test_readers_are_shared_among_versions(mesh: Cluster, gateway: str) -> None:
    found = Counter(asked(f"http://{gateway}/productpage") for _ in range(150))
    print(f"\n34/33/33: {dict(found)}")
    assert {status for status, _ in found} == {200}
    for version in ("v1", "v2", "v3"):
        # 150 draws of a third: 50, a standard deviation of 6
        assert 25 <= found[200, version] <= 75, found


def test_jason_gets_the_second(mesh: Cluster, gateway: str) -> None:
    found = Counter(asked(f"http://{gateway}/productpage", "-H", "end-user: jason") for _ in range(20))
    assert set(found) == {(200, "v2")}
    assert asked(f"http://{gateway}/api/v1/other")[0] == 404, "what no route names is not there"


def test_the_gateway_speaks_tls(mesh: Cluster, gateway: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    line += [
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        "-subj",
        f"/CN={HOST}",
        "-addext",
        f"subjectAltName=DNS:{HOST}",
    ]
    subprocess.run(line, check=True, capture_output=True, timeout=30)
    data = {
        name: base64.b64encode(path.read_bytes()).decode()
        for name, path in (("tls.key", key), ("tls.crt", certificate))
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data}
    mesh.apply(json.dumps({**secret, "metadata": {"name": "shop", "namespace": "istio-system"}}))
    mesh.apply(SECURE)
    words = ("--cacert", str(certificate), "--resolve", f"{HOST}:443:{gateway}")
    assert until("a page by TLS", lambda: asked(f"https://{HOST}/productpage", *words)[0] == 200)
    assert asked(f"https://{HOST}/productpage", "--resolve", f"{HOST}:443:{gateway}")[0] == 0, "nobody signed it"


def test_the_stranger_is_denied(mesh: Cluster) -> None:
    said = until("a denial", lambda: logs(mesh, "stranger") or None)
    assert "DENIED 403" in said
    assert " 200" not in said


def test_a_canary_moves(mesh: Cluster, gateway: str) -> None:
    mesh.apply((EXAMPLE / "edits" / "reviews-v3.yaml").read_text())

    def only_third() -> bool:
        return {asked(f"http://{gateway}/productpage") for _ in range(10)} == {(200, "v3")}

    try:
        assert until("everybody gets the third", only_third, 30)
    finally:
        mesh.apply((EXAMPLE / "routing.yaml").read_text())


@pytest.fixture(scope="module")
def scraped(mesh: Cluster, gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(mesh, tmp_path_factory.mktemp("prometheus")) as found:
        until("the bot's requests", lambda: found.query('istio_requests_total{source_workload="bot-v1"}'), 90)
        time.sleep(6)
        yield found


def test_prometheus_finds_every_proxy_and_control_plane(mesh: Cluster, scraped: Prometheus) -> None:
    def up() -> dict[str, int] | None:
        found = {"envoy-stats": 0, "tulled": 0}
        for one in scraped.query("up == 1"):
            found[one["metric"]["job"]] += 1
        return found if found == {"envoy-stats": proxies, "tulled": 2} else None

    proxies = len(pods_of(mesh, "bookinfo")) + len(pods_of(mesh, "istio-system"))
    until("all are up", up, 60)


def test_metrics_have_istios_names_and_labels(mesh: Cluster, scraped: Prometheus) -> None:
    names = set(scraped.asked("label/__name__/values"))
    assert set(METRICS) <= names, set(METRICS) - names
    ours = {name for name in names if name.startswith("istio_")}
    print(f"\n{sorted(ours)}")
    for one in scraped.query("istio_requests_total"):
        assert set(one["metric"]) - OF_THE_SCRAPE <= LABELS, set(one["metric"]) - OF_THE_SCRAPE - LABELS
    [one] = scraped.query(
        "sum by (source_workload, source_principal, destination_service, destination_principal, request_protocol,"
        " connection_security_policy, source_workload_namespace, destination_version, destination_service_name,"
        " destination_canonical_service, response_flags, source_app)"
        ' (istio_requests_total{reporter="destination", source_workload="bot-v1", response_code="200"})'
    )
    assert one["metric"] == {
        "source_app": "bot",
        "source_workload": "bot-v1",
        "source_workload_namespace": "bookinfo",
        "source_principal": "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-bot",
        "destination_service": "productpage.bookinfo.svc.cluster.local",
        "destination_service_name": "productpage",
        "destination_principal": "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage",
        "destination_canonical_service": "productpage",
        "destination_version": "v1",
        "request_protocol": "http",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }
    assert float(one["value"][1]) > 0
    assert scraped.query(
        'istio_requests_total{request_protocol="grpc", destination_app="ratings", grpc_response_status="0"}'
    )
    assert scraped.query(
        'istio_requests_total{source_workload="stranger-v1", response_code="403", reporter="destination"}'
    )


def test_every_request_is_by_mutual_tls(mesh: Cluster, scraped: Prometheus) -> None:
    """As those say who were asked. The gateway's own callers come from outside: it reports as a source."""
    found = {
        one["metric"].get("connection_security_policy", ""): float(one["value"][1])
        for one in scraped.query(
            'sum by (connection_security_policy) (istio_requests_total{reporter="destination", namespace="bookinfo"})'
        )
    }
    print(f"\nrequests by connection_security_policy, of all destinations: {found}")
    assert set(found) == {"mutual_tls"}
    assert found["mutual_tls"] > 100


def test_nothing_stays(mesh: Cluster, before: set[str]) -> None:
    """The last one of the module."""
    assert listing(mesh) > before
    mesh.kubectl("delete", "ns", *SPACES, limit_s=180)
    tulle(mesh, "uninstall", "--purge", "--yes", f"--wait={PATIENCE_S:.0f}s")
    assert listing(mesh) == before
