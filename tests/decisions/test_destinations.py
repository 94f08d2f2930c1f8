"""Where a connection goes: headless, without address, external, unknown, two ports, another Host, unknown subset."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clients import Client
from local_mesh import LocalMesh
from names import World, address_of_this_machine, free_port, world
from shapes import client, echo, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

NS = "shop"


class Place:
    """A mesh, the world it asks for names, and a server on this machine."""

    def __init__(self, mesh: LocalMesh, names: World) -> None:
        self.mesh = mesh
        self.names = names
        self.machine = address_of_this_machine()
        self.port = free_port()
        """Of a server on this machine, outside of every mesh."""

    @property
    def caller(self) -> Client:
        """Within the mesh."""
        return self.mesh.client("caller")

    def cluster_of_last(self, **expected: object) -> str:
        """Which cluster the caller's sidecar used."""
        return str(self.mesh.logged("caller", NS, reporter="source", **expected)["upstream_cluster"])


OBJECTS = [
    namespace(NS),
    namespace("world", inject=False),
    client("caller", NS),
    echo("db", NS, "db", replicas=2, http=8000, tcp=9000),
    service("db", NS, {"app": "db"}, port("http", 8000), port("tcp", 9000), clusterIP="None"),
    echo("first", NS, "first", http=[8000, 8001], tcp=9000),
    service("first", NS, {"app": "first"}, port("http", 80, 8000), port("http-more", 81, 8001), port("tcp", 9000)),
    echo("second", NS, "second", http=[8000, 8001], tcp=9000),
    service("second", NS, {"app": "second"}, port("http", 80, 8000), port("http-more", 81, 8001), port("tcp", 9000)),
    echo("there", "world", "there", inject=False, http=8000, tcp=9100),
    echo("elsewhere", "world", "elsewhere", inject=False, http=8000, tcp=9100),
    service("alias", NS, None, port("http", 80), type="ExternalName", externalName=f"first.{NS}.svc.cluster.local"),
    service("away", NS, None, port("http", 8000), type="ExternalName", externalName="away.example.test"),
]


@contextmanager
def server_here(place: Place) -> Iterator[None]:
    installed = place.mesh.installed
    words = (installed.programs / "echo.py", "--http", str(place.port), "--version", "here")
    with subprocess.Popen(**installed.command(installed.environment / "bin" / "python", *words)) as server:
        place.mesh.outside.until("200 here", "127.0.0.1", place.port)
        yield
        server.terminate()


@contextmanager
def started(settings: dict[str, object]) -> Iterator[Place]:
    with world() as names, LocalMesh(manifest(*OBJECTS), settings=settings, resolver=names.address) as mesh:
        names.names["unlisted.example.test"] = address_of_this_machine()
        names.names["away.example.test"] = mesh.address("there", "world")
        place = Place(mesh, names)
        with server_here(place):
            yield place


@pytest.fixture(scope="module", params=[{}, {"discovery": "full", "depth": "full"}], ids=["default", "full"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with started(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def closed() -> Iterator[Place]:
    with started({"registryOnly": True}) as found:
        yield found


def test_headless_names_and_pod_addresses(place: Place) -> None:
    pods = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in place.mesh.pods_of("db", NS)}
    assert place.caller.ask("resolve", host="db")["addresses"] == sorted(pods.values())
    by_name = place.caller.http("db", 8000, n=6)
    assert by_name.only("200 db"), by_name.counts
    assert place.cluster_of_last(authority="db") == f"outbound|8000||db.{NS}.svc.cluster.local"
    for name, address in pods.items():
        exact = place.caller.ask("stream", host=address, port=9000)
        assert exact["heard"] == ["db:hello"]
        direct = place.caller.http(address, 8000, n=6, keep=6)
        assert direct.only("200 db"), direct.counts
        assert {answer["body"]["pod"] for answer in direct.answers} == {name}, "a pod's address is that pod"
    log = place.mesh.logged("db", NS, reporter="destination", upstream_cluster="inbound|9000||")
    assert log["downstream_peer"] == f"spiffe://cluster.local/ns/{NS}/sa/default", "TCP to a pod of a service has mTLS"


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME.example.test]
  location: MESH_EXTERNAL
  ports:
  - {number: 9100, name: tcp, protocol: TCP}
  - {number: 8000, name: http, protocol: HTTP}
  resolution: STATIC
  endpoints:
  - address: ADDRESS
"""


def test_service_entries_without_addresses_have_one_each(place: Place) -> None:
    """Two TCP hosts on the same port are told apart only by an address of their own."""
    for name in ("there", "elsewhere"):
        address = place.mesh.address(name, "world")
        place.mesh.apply(ENTRY.replace("NAME", name).replace("ADDRESS", address), f"{name}.yaml")
    addresses = [
        place.caller.ask("resolve", host=f"{name}.example.test")["addresses"] for name in ("there", "elsewhere")
    ]
    assert all(len(found) == 1 and found[0].startswith("240.240.") for found in addresses), addresses
    assert addresses[0] != addresses[1]
    for name in ("there", "elsewhere"):
        heard = place.caller.stream(f"{name}.example.test", 9100)
        assert heard["heard"] == [f"{name}:hello"], heard
        found = place.caller.http(f"{name}.example.test", 8000)
        assert found.only(f"200 {name}"), found.counts


def test_external_names(place: Place) -> None:
    within = place.caller.http("alias", 80, n=3)
    assert within.only("200 first"), within.counts
    log = place.mesh.logged("caller", NS, reporter="source", authority="alias")
    assert log["upstream_peer"] == f"spiffe://cluster.local/ns/{NS}/sa/default", "an alias of a mesh service has mTLS"
    answer = place.caller.until("200 there", "away", 8000, seconds=20).first
    assert "x-tulle-peer" not in answer["body"]["headers"], "who calls is none of a stranger's business"


def test_unknown_hosts_and_addresses_pass_through(place: Place) -> None:
    by_address = place.caller.http(place.machine, place.port, n=3, fresh=True)
    assert by_address.only("200 here"), by_address.counts
    by_name = place.caller.http("unlisted.example.test", place.port, n=3)
    assert by_name.only("200 here"), by_name.counts
    on_known_port = place.caller.http(place.mesh.address("there", "world"), 8000, authority="unlisted.example.test")
    assert on_known_port.only("200 there"), on_known_port.counts
    assert "x-tulle-peer" not in on_known_port.first["body"]["headers"]
    assert place.cluster_of_last(authority="unlisted.example.test") == "PassthroughCluster"


def test_unknown_hosts_and_addresses_under_registry_only(closed: Place) -> None:
    assert closed.caller.http("first").only("200 first")
    by_address = closed.caller.http(closed.machine, closed.port, n=3, fresh=True)
    assert by_address.only("reset"), by_address.counts
    by_name = closed.caller.http("unlisted.example.test", closed.port, n=3, fresh=True)
    assert by_name.only("reset"), by_name.counts
    on_known_port = closed.caller.http(closed.mesh.address("there", "world"), 8000, authority="unlisted.example.test")
    assert on_known_port.only("502"), on_known_port.counts
    log = closed.mesh.logged("caller", NS, reporter="source", authority="unlisted.example.test")
    assert (log["response_code"], log["route_name"]) == (502, "block_all")


TWO_PORTS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: first, namespace: shop}
spec:
  hosts: [first]
  http:
  - match: [{port: 81}]
    route: [{destination: {host: second, port: {number: 81}}}]
  - route: [{destination: {host: first, port: {number: 80}}}]
"""


def test_one_host_on_two_ports(place: Place) -> None:
    ports = {at: place.caller.http("first", at).first["body"] for at in (80, 81)}
    assert (ports[80]["version"], ports[80]["port"]) == ("first", 8000)
    assert (ports[81]["version"], ports[81]["port"]) == ("first", 8001)
    named = place.caller.http("first", 81, authority="first:81").first["body"]
    assert named["port"] == 8001, "a port in the Host is the connection's, not a choice"
    place.mesh.apply(TWO_PORTS, "first-routes.yaml")
    ports = {at: place.caller.http("first", at).first["body"] for at in (80, 81)}
    assert (ports[80]["version"], ports[80]["port"]) == ("first", 8000)
    assert (ports[81]["version"], ports[81]["port"]) == ("second", 8001)
    place.mesh.tulle("delete", "virtualservice", "first", "-n", NS)


def test_the_host_decides_and_not_the_address(place: Place) -> None:
    first = place.mesh.cluster_ip("first", NS)
    found = place.caller.http(first, 80, authority="second")
    lazy = place.mesh.is_on_demand  # its sidecars go by the address, as the routes of the Gateway API mean it
    assert found.only("200 first" if lazy else "200 second"), found.counts
    without_name = place.caller.http(first, 80, authority=first)
    assert without_name.only("200 first"), without_name.counts
    stranger = place.caller.http(first, 80, authority="nobody.example.test")
    assert stranger.only("200 first"), stranger.counts
    cluster = f"outbound|80||first.{NS}.svc.cluster.local" if lazy else "PassthroughCluster"
    assert place.cluster_of_last(authority="nobody.example.test") == cluster
    tcp = place.caller.stream(first, 9000)
    assert tcp["heard"] == ["first:hello"], "TCP has no Host: the address decides"


SUBSET = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: second, namespace: shop}
spec:
  hosts: [second]
  http:
  - route: [{destination: {host: second, subset: gold, port: {number: 80}}}]
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: second, namespace: shop}
spec:
  host: second
  subsets:
  - name: gold
    labels: {version: gold}
"""


def test_an_unknown_subset_is_the_whole_service(place: Place) -> None:
    said = place.mesh.apply(SUBSET, "second-routes.yaml")
    assert "TUL0462" in said.stdout + said.stderr
    found = place.caller.http("second", n=5)
    assert found.only("200 second"), found.counts
    place.mesh.apply(RULE, "second-rule.yaml")
    empty = place.caller.http("second", n=5)
    assert empty.only("503"), "a subset that is defined and selects nobody is empty, as in Istio"
    place.mesh.tulle("delete", "virtualservice", "second", "-n", NS)
    place.mesh.tulle("delete", "destinationrule", "second", "-n", NS)
    deadline = time.monotonic() + 5
    while not (found := place.caller.http("second")).only("200 second"):
        assert time.monotonic() < deadline, found.counts
