"""On-demand sidecars with real Envoys: first requests of every kind, what is held, and what happens without a control plane."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from local_mesh import LocalMesh
from shapes import client, echo, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

NS = "lazy"
MANY = [f"many{number}" for number in range(30)]


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    objects = [
        namespace(NS),
        client("caller", NS),
        echo("web", NS, "web", http=8000, h2c=8002, grpc=8003),
        service(
            "web",
            NS,
            {"app": "web"},
            port("http", 80, 8000),
            port("http2-raw", 82, 8002),
            port("grpc", 83, 8003),
            port("sniffed", 8080, 8000),
        ),
        echo("mail", NS, "mail", tcp=9000, banner=2525),
        service("mail", NS, {"app": "mail"}, port("tcp-smtp", 2525), port("tcp-echo", 9000)),
        *(service(name, NS, {"app": "web"}, port("http", 80, 8000)) for name in MANY),
    ]
    with LocalMesh(manifest(*objects), settings={"discovery": "on-demand"}) as mesh:
        yield mesh


def held(mesh: LocalMesh, kind: str, app: str = "caller") -> set[str]:
    """Names of what a sidecar holds, from its own configuration dump."""
    dump: dict[str, Any] = json.loads(mesh.admin(app, "/config_dump?include_eds", NS))
    names: set[str] = set()
    for part in dump["configs"]:
        if kind == "clusters":
            names |= {one["cluster"]["name"] for one in part.get("dynamic_active_clusters", ())}
        if kind == "hosts":
            for table in part.get("dynamic_route_configs", ()):
                names |= {host["name"] for host in table["route_config"].get("virtual_hosts", ())}
    return names


def test_a_first_request_finds_its_service(mesh: LocalMesh) -> None:
    assert not any("web" in name for name in held(mesh, "clusters"))
    found = mesh.client("caller").http("web")
    assert found.only("200 web"), (found.counts, found.failures)
    assert found.first["body"]["headers"]["host"] == "web"
    assert "outbound|80||web.lazy.svc.cluster.local" in held(mesh, "clusters")
    print(f"first request: {found.slowest * 1000:.1f} ms")
    again = mesh.client("caller").http("web", n=200)
    assert again.only("200 web"), (again.counts, again.failures)
    assert mesh.logged("caller", NS, reporter="source", authority="web")["response_code"] == 200


def test_bytes_find_their_service(mesh: LocalMesh) -> None:
    assert mesh.client("caller").stream("mail", 9000)["heard"] == ["mail:hello"]
    greeted = mesh.client("caller").stream("mail", 2525, greets=True)
    assert greeted["heard"] == ["220 mail ready", "mail:hello"], greeted
