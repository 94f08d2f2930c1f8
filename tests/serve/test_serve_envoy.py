"""Real Envoys on pod sockets: what they hold, what travels, and what happens when something goes wrong."""

import contextlib
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from key_pairs import key_pair, secret
from serve_parts import Envoy, Mesh, bootstrap_of, pod, running, service, start_envoy, until, virtual_service
from traffic import Load, application, free_port

pytestmark = pytest.mark.envoy

SPOILING = str(Path(__file__).with_name("spoiling_control.py"))


@pytest.fixture
def shop(mesh: Mesh) -> Mesh:
    mesh.write("a.yaml", service("reviews", "default", ip="10.96.0.1"), service("web", "default", ip="10.96.0.2"))
    mesh.pods(
        pod("reviews-1", "default", "10.1.0.2", app="reviews", sa="reviews"),
        pod("web-1", "default", "10.1.0.3", app="web", sa="web"),
    )
    return mesh


BOTH = (("reviews-1", "default"), ("web-1", "default"))


def certificates(envoy: Envoy) -> tuple[str, ...]:
    """Serials of the leafs it uses, sorted."""
    found = json.loads(envoy.ask("/certs")[1])["certificates"]
    return tuple(sorted({chain["serial_number"] for one in found for chain in one["cert_chain"]}))


def authorities(envoy: Envoy) -> frozenset[str]:
    """Serials of the roots it trusts."""
    found = json.loads(envoy.ask("/certs")[1])["certificates"]
    return frozenset(root["serial_number"] for one in found for root in one["ca_cert"])


def test_an_edit_of_one_services_routes_resends_that_virtual_host_only(shop: Mesh) -> None:
    shop.start()
    with running(shop, *BOTH):
        shop.settle()
        before = shop.sent()
        path = shop.write("v.yaml", virtual_service("reviews", "default", "reviews", timeout="3s"))
        answer = shop.apply(path)
        assert (answer["affected"], answer["live"], answer["refused"], answer["problems"]) == (2, 2, [], [])
        assert shop.sent_since(before) == {"vhds": 2}, "one virtual host for each of two proxies"
        slowest = max(shop.apply(edit(shop, seconds))["milliseconds"] for seconds in range(4, 24))
        assert slowest < 1000
        assert shop.sent_since(before) == {"vhds": 42}
        revision = shop.get("/v1/version")["revision"]
        edit(shop, 99)
        time.sleep(0.3)
        late = shop.ask("POST", "/v1/apply", {"paths": [str(path)], "sinceRevision": revision})[1]
        assert (late["affected"], late["live"]) == (2, 2), "the watcher was first, and it is still the apply's"
        before = shop.sent()
        again = shop.apply(path)
        assert (again["affected"], shop.sent_since(before)) == (0, {}), "nothing changed, nobody is told"


def edit(mesh: Mesh, seconds: int) -> Path:
    return mesh.write("v.yaml", virtual_service("reviews", "default", "reviews", timeout=f"{seconds}s"))


def test_after_a_kill_everybody_comes_back_and_nothing_unchanged_travels(shop: Mesh) -> None:
    shop.start()
    edit(shop, 3)
    with running(shop, *BOTH) as envoys:
        shop.settle()
        shop.kill()
        shop.start()
        shop.settle()
        assert set(shop.sent()) <= {"sds"}, "leafs are forgotten on purpose; everything else is content"
        assert all(proxy["types"]["VHDS"] == "SYNCED" for proxy in shop.proxies().values())
        answer = shop.apply(edit(shop, 5))
        assert answer["live"] == 2
        assert all(envoy.is_live() for envoy in envoys)


def test_a_refused_resource_is_told_with_its_line_and_not_sent_again(shop: Mesh) -> None:
    shop.start(program=(SPOILING,))
    edit(shop, 3)
    with running(shop, *BOTH) as envoys:
        shop.settle()
        answer = shop.apply(edit(shop, 13))
        assert (answer["affected"], answer["live"], answer["waiting"]) == (2, 0, [])
        assert [refused["proxy"] for refused in answer["refused"]] == ["reviews-1.default", "web-1.default"]
        refused = answer["refused"][0]
        assert refused["resource"] == "9080/reviews.default.svc.cluster.local"
        assert "unique" in refused["message"].lower()
        assert refused["origin"]["kind"] == "VirtualService"
        assert refused["origin"]["file"].endswith("v.yaml")
        assert refused["origin"]["line"] > 1
        problems = [found for found in shop.get("/v1/problems")["problems"] if found["code"] == "TUL0801"]
        assert len(problems) == 2
        before = shop.sent()
        shop.write("other.yaml", virtual_service("web", "default", "web", timeout="9s"))
        shop.settle()
        time.sleep(0.5)
        assert shop.sent_since(before) == {"vhds": 2}, "only the other edit travels; the refused one is not repeated"
        assert shop.proxies()["web-1.default"]["types"]["VHDS"] == "NACKED"
        answer = shop.apply(edit(shop, 4))
        assert answer["live"] == 2
        assert not [found for found in shop.get("/v1/problems")["problems"] if found["code"] == "TUL0801"]
        assert all(envoy.is_live() for envoy in envoys)


def test_a_frozen_proxy_delays_nobody_and_catches_up(shop: Mesh) -> None:
    shop.start()
    with running(shop, *BOTH) as (frozen, _):
        shop.settle()
        os.kill(frozen.popen.pid, signal.SIGSTOP)
        try:
            resident = memory_of(shop)
            for seconds in range(2, 200):
                edit(shop, seconds)
                time.sleep(0.005)
            answer = shop.apply(edit(shop, 500), timeout=1)
            assert answer["waiting"] == [frozen.id]
            assert answer["live"] == 1
            assert "web-1.default" in {name for name, proxy in shop.proxies().items() if proxy["isSynced"]}
            assert memory_of(shop) - resident < 8 << 20, "what the frozen proxy was not told is not kept"
        finally:
            os.kill(frozen.popen.pid, signal.SIGCONT)
        shop.settle()
        held = shop.get(f"/v1/proxies/{frozen.id}/held?type=vhds&name=9080/reviews.default.svc.cluster.local")
        assert held["resources"][0]["resource"]["routes"][0]["route"]["timeout"] == "500s"


def memory_of(mesh: Mesh) -> int:
    assert mesh.popen is not None
    text = Path(f"/proc/{mesh.popen.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_leafs_are_renewed_early_and_nothing_else_moves(shop: Mesh) -> None:
    shop.settings = {"leafTtlSeconds": 6}
    shop.start()
    with running(shop, *BOTH) as (envoy, _):
        shop.settle()
        first = until(lambda: certificates(envoy), "a leaf")
        before = shop.sent()
        second = until(lambda: (now := certificates(envoy)) != first and now, "the next leaf", 6)
        until(lambda: certificates(envoy) != second, "the one after it", 6)
        assert set(shop.sent_since(before)) == {"sds"}
        assert shop.get("/v1/ca")["leafs"][0]["isAcknowledged"]


def test_a_root_is_replaced_in_three_steps(shop: Mesh) -> None:
    shop.settings = {"leafTtlSeconds": 6, "bundleSettleSeconds": 0.3, "maxConnectionAgeSeconds": 1}
    shop.start()
    with running(shop, *BOTH) as envoys:
        shop.settle()
        old = authorities(envoys[0])
        assert len(old) == 1
        assert shop.ask("POST", "/v1/ca/rotate")[1]["phase"] == "distributing"
        assert shop.ask("POST", "/v1/ca/rotate")[0] == 409
        for envoy in envoys:
            until(lambda envoy=envoy: len(authorities(envoy)) == 2, "both roots trusted")
        until(lambda: shop.get("/v1/ca")["phase"] == "replacing", "the new root to sign")
        until(lambda: shop.get("/v1/ca")["phase"] == "steady", "the old root to go", 30)
        for envoy in envoys:
            until(lambda envoy=envoy: len(authorities(envoy)) == 1 and authorities(envoy) != old, "the new root alone")
        assert len(shop.get("/v1/ca")["roots"]) == 1


def test_a_pod_whose_shape_changes_moves_to_its_new_view(shop: Mesh) -> None:
    shop.start()
    with running(shop, *BOTH):
        shop.settle()
        assert inbound_ports(shop) == {"inbound|9080||", "inbound|9080||h2"}
        shop.write("more.yaml", service("reviews-admin", "default", port=7070, selector={"app": "reviews"}))
        shop.settle()
        assert inbound_ports(shop) >= {"inbound|9080||", "inbound|7070||"}


def test_a_port_that_appears_later_has_its_virtual_hosts_at_once(shop: Mesh) -> None:
    shop.start()
    with running(shop, *BOTH) as (envoy, _):
        shop.settle()
        for name, port in (("more", 7070), ("again", 7070), ("last", 7071)):
            path = shop.write(f"{name}.yaml", service(name, "default", ip=f"10.96.2.{port % 100}", port=port))
            assert shop.apply(path)["live"] == 2
            wanted = f"{port}/{name}.default.svc.cluster.local"
            began = time.monotonic()
            until(lambda wanted=wanted: wanted in hosts_of(envoy), f"{wanted} in Envoy", 5)
            assert time.monotonic() - began < 3, "no waiting for the initial fetch timeout of 15 s"
        (shop.config / "more.yaml").unlink()
        until(lambda: not any(host.startswith("7070/more") for host in hosts_of(envoy)), "the host to go")
        assert "7070/again.default.svc.cluster.local" in hosts_of(envoy)


def hosts_of(envoy: Envoy) -> set[str]:
    """Virtual hosts of its route configurations, as `table/host`."""
    dumps = [one for one in envoy.dump()["configs"] if one["@type"].endswith("RoutesConfigDump")]
    tables = [one["route_config"] for dump in dumps for one in dump.get("dynamic_route_configs", ())]
    return {host["name"] for table in tables for host in table.get("virtual_hosts", ())} | {
        f"{table['name']}/{host['name'].rpartition('/')[2]}"
        for table in tables
        for host in table.get("virtual_hosts", ())
    }


def inbound_ports(mesh: Mesh) -> set[str]:
    held = mesh.get("/v1/proxies/reviews-1.default/held?type=cds")["resources"]
    return {one["name"] for one in held if one["name"].startswith("inbound|")}


def test_over_plaintext_an_envoy_gets_everything_but_secrets(shop: Mesh) -> None:
    port = free_port()
    shop.start("--xds-plaintext", f"127.0.0.1:{port}")
    admin = shop.home / "plain.sock"
    node = {"id": "sidecar~10.1.0.2~reviews-1.default~x", "cluster": "x", "metadata": {"NAMESPACE": "default"}}
    xds = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    popen = start_envoy([], bootstrap_of(node, xds, admin), shop.home / "plain.log")
    try:
        until(lambda: "reviews-1.default" in shop.proxies(), "the stream")
        until(lambda: shop.proxies()["reviews-1.default"]["types"]["LDS"] == "SYNCED", "listeners")
        proxy = shop.proxies()["reviews-1.default"]
        assert (proxy["transport"], proxy["identity"], proxy["types"]["SDS"]) == ("plaintext", "", "NOT SENT")
        until(lambda: "TUL0803" in shop.log.read_text(), "the code in the log")
    finally:
        popen.kill()
        popen.wait()


# --- traffic through a gateway on loopback -----------------------------------------------------------------------------


class Edge:
    """A gateway's Envoy on loopback ports."""

    def __init__(self, mesh: Mesh, backend: int) -> None:
        self.mesh = mesh
        self.port, self.secure = free_port(), free_port()
        mesh.pods(
            pod("gw-1", "default", "127.0.0.1", gateway=True, labels={"istio": "gw"}, port=self.port),
            without_sidecar(pod("app-1", "default", "127.0.0.1", app="app", port=backend)),
        )
        self.backend = backend

    def write(self, name: str) -> Path:
        """One Service of that name over the application, and the route to it: each time another cluster."""
        made = service(name, "default", ip="10.96.1.1", port=80, selector={"app": "app"})
        made["spec"]["ports"][0]["targetPort"] = self.backend
        route = virtual_service("v", "default", name)
        route["spec"] |= {"hosts": ["app.example"], "gateways": ["gw"]}
        route["spec"]["http"][0]["route"][0]["destination"]["port"] = {"number": 80}
        return self.mesh.write("app.yaml", made, route)

    def gateway(self) -> dict[str, Any]:
        servers = [
            {"port": {"number": self.port, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
            {
                "port": {"number": self.secure, "name": "https", "protocol": "HTTPS"},
                "hosts": ["*"],
                "tls": {"mode": "SIMPLE", "credentialName": "cert"},
            },
        ]
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "gw", "namespace": "default"},
            "spec": {"selector": {"istio": "gw"}, "servers": servers},
        }


def without_sidecar(made: dict[str, Any]) -> dict[str, Any]:
    made["metadata"]["annotations"] = {"tulle.dev/sidecar": "false"}
    return made


@pytest.fixture
def edge(mesh: Mesh) -> Iterator[Edge]:
    with application() as backend:
        made = Edge(mesh, backend)
        mesh.write("g.yaml", made.gateway(), secret("cert", "default", key_pair("first")))
        made.write("one")
        mesh.start()
        envoy = Envoy(mesh, "gw-1", "default", shares_network=True, role="router")
        try:
            until(envoy.is_live, "the gateway")
            mesh.settle()
            yield made
        finally:
            envoy.stop()


def test_make_before_break_under_load(edge: Edge) -> None:
    with Load(edge.port, "app.example") as load:
        until(lambda: load.count > 50, "traffic")
        for number in range(40):
            answer = edge.mesh.apply(edge.write(f"next-{number}"))
            assert (answer["live"], answer["refused"]) == (1, []), answer
        count = load.count
        until(lambda: load.count > count + 50, "traffic after the last edit")
    assert load.failed == []
    clusters = {one["name"] for one in edge.mesh.get("/v1/proxies/gw-1.default/held?type=cds")["resources"]}
    assert "outbound|80||next-39.default.svc.cluster.local" in clusters
    assert not any("next-38." in name for name in clusters), "what nobody uses is taken away"


def test_the_control_plane_may_die_under_load(edge: Edge) -> None:
    with Load(edge.port, "app.example") as load:
        until(lambda: load.count > 50, "traffic")
        for number in range(3):
            edge.mesh.kill()
            edge.write(f"while-dead-{number}")
            edge.mesh.start()
            edge.mesh.settle()
        count = load.count
        until(lambda: load.count > count + 50, "traffic after the last restart")
    assert load.failed == []


def test_replacing_a_gateways_certificate_keeps_connections(edge: Edge) -> None:
    with contextlib.closing(handshake(edge.secure)) as old:
        first = serial(old)
        ask(old)
        before = edge.mesh.sent()
        second = key_pair("second")
        answer = edge.mesh.apply(edge.mesh.write("g.yaml", edge.gateway(), secret("cert", "default", second)))
        assert (answer["affected"], answer["live"]) == (1, 1)
        assert edge.mesh.sent_since(before) == {"sds": 1}

        def replaced() -> bool:
            with contextlib.closing(handshake(edge.secure)) as new:
                ask(new)
                return serial(new) == second.serial

        until(replaced, "the new certificate")
        ask(old)
        assert first != second.serial


def handshake(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5), server_hostname="app.example")


def ask(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: app.example\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\nok"):
        more = connection.recv(4096)
        assert more, "the connection was closed"
        answer += more
    assert answer.startswith(b"HTTP/1.1 200")


def serial(connection: ssl.SSLSocket) -> int:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
