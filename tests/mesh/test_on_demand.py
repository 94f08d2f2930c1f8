"""On-demand sidecars with real Envoys: first requests of every kind, what is held, and what happens without a control plane.

Every kind of first request has a Service of its own, as only the first one is one.
"""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import pytest
from certificates import self_signed
from local_mesh import LocalMesh, over_unix
from shapes import client, echo, manifest, namespace, port, service, web

pytestmark = pytest.mark.mesh

NS = "lazy"
KINDS = (
    *(
        "faulty",
        "faulty-post",
        "plain",
        "split",
        "split-socket",
        "split-grpc",
        "shadowed",
        "socket",
        "upload",
        "upload-h2",
        "slow",
    ),
    "pause",
)
MANY = [f"many{number}" for number in range(30)]
TIMED = [f"timed{number}" for number in range(40)]
ABSENT = 40001
"""A port of the caller's own service addresses that nobody declares."""

ROUTES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: NAME, namespace: lazy}
spec:
  host: NAME
  subsets:
  - {name: one, labels: {version: one}}
  - {name: two, labels: {version: two}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: lazy}
spec:
  hosts: [NAME]
  http:
  - match: [{authority: {exact: other.example.test}}]
    headers: {request: {set: {x-seen: other}}}
    route: [{destination: {host: NAME, subset: one}}]
  - match: [{uri: {prefix: /status}}]
    retries: {attempts: 3, retryOn: "503", perTryTimeout: 2s}
    route: [{destination: {host: NAME, subset: one}}]
  - headers: {request: {set: {x-seen: split}}}
    route:
    - {destination: {host: NAME, subset: one}, weight: 50}
    - {destination: {host: NAME, subset: two}, weight: 50}
"""
MIRROR = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shadowed, namespace: lazy}
spec:
  hosts: [shadowed]
  http:
  - route: [{destination: {host: shadowed}}]
    mirror: {host: shadow}
"""


FAULT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: lazy}
spec:
  hosts: [NAME]
  http:
  - fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: NAME}}]
"""


def objects() -> list[dict[str, Any]]:
    """The caller, what it calls, and a Service for every first time."""
    chosen = {"app": "web"}
    ports = (port("http", 80, 8000), port("http2-raw", 82, 8002), port("grpc", 83, 8003), port("sniffed", 8080, 8000))
    return [
        namespace(NS),
        client("caller", NS),
        client("eager", NS, annotations={"tulle.dev/discovery": "full"}),
        echo("web", NS, "one", http=8000, h2c=8002, grpc=8003),
        echo("web", NS, "two", http=8000, h2c=8002, grpc=8003),
        *(service(name, NS, chosen, *ports) for name in KINDS),
        *(service(name, NS, chosen, port("http", 80, 8000)) for name in (*MANY, *TIMED)),
        *web("shadow", NS, "shadow"),
        echo("mail", NS, "mail", tcp=9000, banner=[2525, 8080]),
        # 8080 is a sniffed port of others; here it carries bytes of a server that speaks first
        service("mail", NS, {"app": "mail"}, port("tcp-smtp", 2525), port("tcp-echo", 9000), port("tcp-late", 8080)),
        service("mail-again", NS, {"app": "mail"}, port("tcp-echo", 9000)),
    ]


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    certificate, key = self_signed("safe.lazy.svc.cluster.local")
    routes = [ROUTES.replace("NAME", name) for name in ("split", "split-socket", "split-grpc")]
    routes += [FAULT.replace("NAME", name) for name in ("faulty", "faulty-post")]
    mesh = LocalMesh(manifest(*objects()), *routes, MIRROR, settings={"discovery": "on-demand", "depth": "full"})
    place = mesh.installed.programs / mesh.name
    for name, content in (("cert.pem", certificate), ("key.pem", key)):
        mesh.installed.file_for_user(place / name, content)
    safe = echo("safe", NS, "safe", tls=f"9443:{place}/cert.pem:{place}/key.pem")
    mesh.add(manifest(safe, service("safe", NS, {"app": "safe"}, port("tls", 443, 9443))))
    with mesh:
        yield mesh


def held(mesh: LocalMesh, kind: str, app: str = "caller") -> set[str]:
    """Names of what a sidecar holds, from its own configuration dump: `clusters` or `hosts`."""
    dump: dict[str, Any] = json.loads(mesh.admin(app, "/config_dump", NS))
    names: set[str] = set()
    for part in dump["configs"]:
        if kind == "clusters":
            names |= {one["cluster"]["name"] for one in part.get("dynamic_active_clusters", ())}
        else:
            for table in part.get("dynamic_route_configs", ()):
                names |= {host["name"] for host in table["route_config"].get("virtual_hosts", ())}
    return names


def services_held(mesh: LocalMesh, app: str = "caller") -> set[str]:
    """Services whose clusters a sidecar holds."""
    found = (re.fullmatch(r"outbound\|\d+\|[^|]*\|([^.]+)\.lazy\..*", name) for name in held(mesh, "clusters", app))
    return {match[1] for match in found if match}


def cluster_of(mesh: LocalMesh, name: str) -> str:
    return f"outbound|80||{name}.{NS}.svc.cluster.local"


def test_a_sidecar_starts_with_nothing_of_others(mesh: LocalMesh) -> None:
    assert services_held(mesh) == set()
    assert not [name for name in held(mesh, "hosts") if name.startswith("vip/1")]
    assert services_held(mesh, "eager") >= {*KINDS, *MANY, *TIMED}, (
        "the annotation of a pod is nearer than the mesh's setting"
    )


def test_a_first_request(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    forged = {"x-tulle-again": "1", "x-tulle-destination": "vip/192.0.2.1:80"}
    found = caller.http("plain", path="/first", headers=forged)
    assert found.only("200 one", "200 two"), (found.counts, found.failures)
    headers = found.first["body"]["headers"]
    assert headers["host"] == "plain", "the server sees what the client called"
    assert not [name for name in headers if name.startswith("x-tulle")]
    again = caller.http("plain", path="/known", headers=forged, n=200)
    assert again.only("200 one", "200 two"), (again.counts, again.failures)
    assert cluster_of(mesh, "plain") in held(mesh, "clusters")
    mesh.logged("caller", NS, reporter="source", path="/known")
    (log,) = (line for line in mesh.log("caller", NS) if line.get("path") == "/first")
    assert log["upstream_cluster"] == cluster_of(mesh, "plain")
    assert log["upstream_peer"] == f"spiffe://cluster.local/ns/{NS}/sa/default"
    assert log["downstream_local_address"] == f"{mesh.cluster_ip('plain', NS)}:80"
    assert log["downstream_remote_address"].startswith(f"{mesh.address('caller', NS)}:")

    def counted() -> float:
        series = mesh.metrics("caller", NS)
        return sum(value for labels, value in series if labels["destination_service_name"] == "plain")

    mesh.wait_for(lambda: counted() == 201, "every request in the metrics, once")


def test_weights_subsets_headers_and_retries(mesh: LocalMesh) -> None:
    """The rules of the host hold within its address, also those about `authority`."""
    caller = mesh.client("caller")
    first = caller.http("split", authority="other.example.test")
    assert first.only("200 one"), (first.counts, first.failures)
    headers = first.first["body"]["headers"]
    assert (headers["host"], headers["x-seen"]) == ("other.example.test", "other")
    split = caller.http("split", n=200, keep=1)
    assert split.only("200 one", "200 two"), (split.counts, split.failures)
    assert 25 < split.share("200 one") < 75, split.counts
    assert split.first["body"]["headers"]["x-seen"] == "split"
    failing = caller.http("split", path="/status/503")
    assert failing.counts["503 one"] == 1, failing.counts
    assert mesh.logged("caller", NS, reporter="source", path="/status/503")["response_flags"] == "URX"
    moved = (
        ROUTES.replace("NAME", "split")
        .replace("one}, weight: 50", "one}, weight: 0")
        .replace("two}, weight: 50", "two}, weight: 100")
    )
    mesh.apply(moved, "moved.yaml")
    edited = caller.http("split", n=50)
    assert edited.only("200 two"), (edited.counts, edited.failures)


def test_a_mirror(mesh: LocalMesh) -> None:
    found = mesh.client("caller").http("shadowed", path="/copied")
    assert found.only("200 one", "200 two"), (found.counts, found.failures)
    assert mesh.logged("shadow", NS, reporter="destination", path="/copied")["response_code"] == 200


def test_filters_of_a_route_hold_for_its_first_request(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    assert caller.http("faulty", n=3).only("418")
    assert caller.http("faulty-post", method="POST", body="x", n=3).only("418")


def test_first_requests_that_are_not_short(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    for name in ("socket", "split-socket"):
        talked = caller.ask("websocket", host=name, port=80, lines=["a", "b"])
        assert talked["outcome"] == "ok", (name, talked)
        assert [line[-2:] for line in talked["heard"]] == [":a", ":b"]
    followed = caller.ask("grpc", host="split-grpc", port=83, n=5)
    assert followed["outcome"] == "ok", followed
    sent = caller.http("upload", method="POST", body_bytes=3_000_000)
    assert sent.only("200 one", "200 two"), (sent.counts, sent.failures)
    assert sent.first["body"]["size"] == 3_000_000
    http2 = caller.ask("h2c", host="upload-h2", port=82)
    assert http2["outcome"] == "ok", http2
    translated = caller.ask("h2c", host="upload-h2", port=80)
    assert '"protocol": "HTTP/1.1"' in translated["body"], translated


def test_a_first_request_may_take_its_time(mesh: LocalMesh) -> None:
    """Longer than a lookup may take (15 s): that bound ends when the lookup does."""
    found = mesh.client("caller").http("slow", path="/delay/17", patience=30)
    assert found.only("200 one", "200 two"), (found.counts, found.failures)


def test_bytes_find_their_service(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    assert caller.stream("mail", 9000)["heard"] == ["mail:hello"]
    for number in (2525, 8080):
        greeted = caller.stream("mail", number, greets=True)
        assert greeted["heard"] == ["220 mail ready", "mail:hello"], greeted
    assert caller.stream("mail", 2525, greets=True)["first"] < 0.19, "a port that was declared is not sniffed"
    ended = mesh.logged("caller", NS, reporter="source", upstream_cluster=f"outbound|9000||mail.{NS}.svc.cluster.local")
    assert ended["upstream_peer"] == f"spiffe://cluster.local/ns/{NS}/sa/default"


def test_tls_passes_through(mesh: LocalMesh) -> None:
    found = mesh.client("caller").http("safe", 443, tls=True, sni=f"safe.{NS}.svc.cluster.local")
    assert found.only("200 safe"), (found.counts, found.failures)


def test_a_sniffed_port(mesh: LocalMesh) -> None:
    found = mesh.client("caller").http("pause", 8080)
    assert found.only("200 one", "200 two"), (found.counts, found.failures)


def test_many_first_requests_at_once(mesh: LocalMesh) -> None:
    """Thirty to one service that nobody has called, and one to each of thirty."""
    caller = mesh.client("caller")
    before = services_held(mesh)
    same = caller.http("many0", n=30, concurrency=30, fresh=True)
    assert same.only("200 one", "200 two"), (same.counts, same.failures)
    for name in MANY[1:]:
        found = caller.http(name)
        assert found.only("200 one", "200 two"), (name, found.counts, found.failures)
    assert services_held(mesh) - before == set(MANY)
    assert not services_held(mesh) & set(TIMED), "nothing is held that was not called"


def test_how_long_first_requests_take(mesh: LocalMesh) -> None:
    times = sorted(mesh.client("caller").http(name).slowest * 1000 for name in TIMED)
    known = sorted(mesh.client("caller").http(name, fresh=True).slowest * 1000 for name in TIMED)
    print(
        f"\nfirst requests: median {median(times):.1f} ms, slowest {times[-1]:.1f} ms; afterwards {median(known):.1f} ms"
    )
    assert median(times) < 250, times


def test_an_unknown_port_gets_what_unknown_destinations_get(mesh: LocalMesh) -> None:
    """Nobody listens there: refused, not kept waiting."""
    found = mesh.client("caller").stream(mesh.cluster_ip("plain", NS), ABSENT, timeout=10)
    assert found["outcome"] in {"reset", "refused"}, found
    assert not found["heard"]


def test_the_command_line_explains_what_was_asked_for(mesh: LocalMesh) -> None:
    address = mesh.cluster_ip("split", NS)
    mesh.client("caller").http("split")
    status = json.loads(mesh.tulle("proxy", "status", "-o", "json").stdout)
    (caller,) = [one for one in status if one["pod"].startswith("caller")]
    assert set(caller["types"].values()) == {"SYNCED"}, caller
    explained = over_unix(
        mesh.run / "admin.sock", "GET", f"/v1/explain?proxy={caller['id']}&type=vhds&name=vip/{address}:80"
    )
    assert {"VirtualService", "Service"} <= {origin["kind"] for origin in json.loads(explained)["origins"]}


def control_plane(mesh: LocalMesh) -> int:
    return int(json.loads(over_unix(mesh.run / "admin.sock", "GET", "/v1/version"))["pid"])


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_known_services_are_answered_without_a_control_plane(mesh: LocalMesh) -> None:
    caller = mesh.client("caller")
    assert caller.http("plain").only("200 one", "200 two")
    with stopped(control_plane(mesh)):
        found = caller.http("plain", n=100, fresh=True)
        assert found.only("200 one", "200 two"), (found.counts, found.failures)
        began = time.monotonic()
        unknown = caller.http("shadow", patience=40)
        took = time.monotonic() - began
        assert unknown.only("504"), (unknown.counts, unknown.failures)
        assert 14 < took < 20, took
    later = caller.until("200 shadow", "shadow", seconds=30)
    assert later.only("200 shadow")


def test_a_new_sidecar_is_given_what_its_workload_calls(mesh: LocalMesh) -> None:
    """Also by a control plane that was started anew: what was learned is written down."""
    caller = mesh.client("caller")
    caller.http("plain")
    caller.stream("mail-again", 9000)
    time.sleep(7)  # written at most every five seconds
    before = control_plane(mesh)
    os.kill(before, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return control_plane(mesh) != before
        except (OSError, AssertionError):
            return False

    mesh.wait_for(is_back, "a new control plane")
    mesh.tulle("restart", "sidecar", mesh.pod("caller", NS), "-n", NS, timeout=90)
    address = mesh.cluster_ip("mail-again", NS)
    mesh.wait_for(lambda: f"tcp|{address}:9000" in held(mesh, "clusters"), "the cluster is there before anybody calls")
    with stopped(control_plane(mesh)):
        found = caller.http("plain", n=20, fresh=True)
        assert found.only("200 one", "200 two"), (found.counts, found.failures)
        assert caller.stream("mail-again", 9000)["heard"] == ["mail:hello"]


def test_a_control_plane_with_an_empty_memory_is_taught(mesh: LocalMesh) -> None:
    """Its file is gone; the sidecar says what it holds, and loses nothing."""
    caller = mesh.client("caller")
    caller.http("plain")
    state = mesh.installed.place / "state" / "tulle" / mesh.name
    mesh.wait_for(lambda: [*state.rglob("learned.json")], "it is written down")
    (learned,) = state.rglob("learned.json")
    before = control_plane(mesh)
    with caller.load("plain", rate=50) as load:
        os.kill(before, signal.SIGSTOP)
        learned.unlink()
        os.kill(before, signal.SIGKILL)
        time.sleep(6)
    assert load.outcome is not None
    assert load.outcome.only("200 one", "200 two"), (load.outcome.counts, load.outcome.failures)
    assert control_plane(mesh) != before
    mesh.wait_for(learned.exists, "it is written down again")
    assert f"vip/{mesh.cluster_ip('plain', NS)}:80" in learned.read_text()
    assert cluster_of(mesh, "plain") in held(mesh, "clusters")


def test_a_new_port_of_others_touches_no_connection(mesh: LocalMesh) -> None:
    """The capture listener learns that a port speaks HTTP without being replaced: it carries the long connections."""

    def stat(name: str) -> int:
        return int(mesh.admin("caller", f"/stats?filter=^listener_manager.{name}$", NS).split()[-1])

    caller = mesh.client("caller")
    replaced, in_place = (
        stat("listener_modified") - stat("listener_in_place_updated"),
        stat("listener_in_place_updated"),
    )
    with caller.talk("mail", 9000) as talk:
        mesh.apply(manifest(service("fresh", NS, {"app": "web"}, port("http", 8123, 8000))), "fresh.yaml")
        mesh.wait_for(lambda: bool(caller.ask("resolve", host="fresh")["addresses"]), "its name")
        found = caller.http("fresh", 8123)
        time.sleep(1)
    assert found.only("200 one", "200 two"), (found.counts, found.failures)
    assert talk.answer["outcome"] == "ok", talk.answer
    assert stat("listener_in_place_updated") == in_place + 1
    assert stat("listener_modified") - stat("listener_in_place_updated") == replaced


def test_a_service_that_goes_and_comes_again(mesh: LocalMesh) -> None:
    """Its name is never taken away; it passes through meanwhile, and means the service again afterwards."""
    caller = mesh.client("caller")
    address = mesh.cluster_ip("many1", NS)
    assert caller.http(address).only("200 one", "200 two")
    mesh.delete("service", "many1", "-n", NS)
    mesh.wait_for(lambda: "many1" not in services_held(mesh), "its cluster goes")
    gone = caller.http(address, patience=20)
    assert not any(outcome.startswith("200") for outcome in gone.counts), gone.counts
    again = service("many1", NS, {"app": "web"}, port("http", 80, 8000), clusterIP=address)
    mesh.apply(manifest(again), "many1.yaml")
    back = caller.http(address, n=20, fresh=True)
    assert back.only("200 one", "200 two"), (back.counts, back.failures)
