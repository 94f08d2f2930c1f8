"""On-demand proxies and what serving knows of their workloads, without sockets: what fails or finds no room is tried again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from serve_parts import pod, service

from tulle.app.control_plane import ControlPlane
from tulle.app.settings import Settings
from tulle.app.world import QueuedSource
from tulle.compile.ondemand import resources_held
from tulle.compile.views import View
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object
from tulle.serve import learning, shelves
from tulle.serve.ads import Guest, OpenDoor, PodDoor
from tulle.serve.client import Client
from tulle.xds.events import DeltaRequest
from tulle.xds.names import TypeUrl
from tulle.xds.wire import ClientNode

SETTINGS = Settings(discovery="on-demand", service_cidrs=("10.96.0.0/16",))
MARK = ObjectKey("Kubernetes", "", "Word", "shop", "mark")
UID = "uid-1"


def vip(number: int) -> str:
    return f"vip/10.96.0.{number}:9080"


Make = Callable[[], ControlPlane]


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    """Five services and one pod, loaded; nothing listens."""
    config = tmp_path / "config"
    config.mkdir()
    services = [service(f"web-{number}", "shop", ip=f"10.96.0.{number}") for number in range(1, 6)]
    (config / "a.yaml").write_text("\n---\n".join(map(json.dumps, services)))
    run = tmp_path / "run"
    run.mkdir()
    pods = {"apiVersion": "v1", "kind": "List", "items": [pod("app-1", "shop", "10.1.0.1", uid=UID)]}
    (run / "runtime.json").write_text(json.dumps(pods))
    place = {"cluster": "Kubernetes", "namespace": "default"}
    made = ControlPlane(
        QueuedSource([config], **place),
        SETTINGS,
        None,
        tmp_path / "state",
        runtime=QueuedSource([run / "runtime.json"], **place),
    )
    made.world.load(SETTINGS.mesh())
    made.pushing.after_edit()
    return made


def proxy(plane: ControlPlane) -> Client:
    """The pod's, with the subscriptions it begins with."""
    client = plane.pushing.admit(Guest(PodDoor(UID), "unix:"), None)
    for url in (TypeUrl.CDS, TypeUrl.LDS, TypeUrl.VHDS):
        client.hear(DeltaRequest(url))
    return client


def stranger(plane: ControlPlane, name: str) -> Client:
    """Somebody who says who it is."""
    node = ClientNode(f"sidecar~10.1.0.9~{name}.shop~shop.svc.cluster.local", "", {"NAMESPACE": "shop"})
    client = plane.pushing.admit(Guest(OpenDoor(), "ipv4:127.0.0.1:1"), node)
    client.hear(DeltaRequest(TypeUrl.VHDS))
    return client


def ask(client: Client, *names: str) -> None:
    client.hear(DeltaRequest(TypeUrl.VHDS, names))


def holds(client: Client, name: str) -> bool:
    return name in client.snapshot.shelf(TypeUrl.VHDS)


@query
def unlucky(db: Database, view: View, names: frozenset[str]) -> object:
    found = objects(db, MARK)
    if vip(2) in names and (found is None or found.spec == "bad"):
        raise ZeroDivisionError("a defect of ours")
    return resources_held(db, view, names)


def test_a_name_that_could_not_be_computed_is_tried_again_with_the_next_edit(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelves, "resources_held", unlucky)
    client = proxy(plane)
    ask(client, vip(1))
    ask(client, vip(2))
    assert (holds(client, vip(1)), holds(client, vip(2))) == (True, False)
    assert plane.pushing.bugs
    with plane.db.edit() as tx:
        tx.set(objects, MARK, Object(MARK, "good"))
    assert client in plane.pushing.after_edit().affected
    assert holds(client, vip(2))
    assert not plane.pushing.bugs
    version = plane.pushing.version
    plane.pushing.after_edit()
    assert plane.pushing.version == version, "once is enough"


def test_a_name_that_found_no_room_gets_it_when_there_is_some(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "MOST_NAMES", 2)
    first, second = proxy(plane), proxy(plane)
    ask(first, vip(1), vip(2))
    ask(second, vip(3))
    assert not holds(second, vip(3))
    assert [found.code for found in plane.pushing.crowded()] == ["TUL0808"]
    plane.pushing.forget_old()
    assert not holds(second, vip(3)), "both names are in use"
    assert plane.pushing.crowded()
    plane.pushing.left(first)
    plane.pushing.forget_old()
    assert holds(second, vip(3))
    assert not plane.pushing.crowded()


def test_a_scan_s_names_get_room_when_they_become_services(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "MOST_UNKNOWN", 1)
    client = proxy(plane)
    ask(client, "vip/10.96.9.1:80", "vip/10.96.9.2:80")
    assert (holds(client, "vip/10.96.9.1:80"), holds(client, "vip/10.96.9.2:80")) == (True, False)
    key = ObjectKey("Kubernetes", "", "Service", "shop", "web-1")
    spec = objects.snapshot(plane.db)[key].spec
    with plane.db.edit() as tx:
        for number in (1, 2):
            fresh = ObjectKey("Kubernetes", "", "Service", "shop", f"late-{number}")
            tx.set(objects, fresh, Object(fresh, _moved(spec, f"10.96.9.{number}")))
    plane.pushing.after_edit()
    plane.pushing.forget_old()
    assert holds(client, "vip/10.96.9.2:80")


def _moved(spec: object, address: str) -> object:
    from msgspec.structs import replace

    found = replace(spec, cluster_ip=address)  # type: ignore[type-var]
    return replace(found, ports=tuple(replace(one, port=80) for one in found.ports))  # type: ignore[attr-defined]


def test_what_nobody_proves_is_not_written_down(plane: ControlPlane) -> None:
    unproven = stranger(plane, "liar")
    ask(unproven, vip(1))
    assert holds(unproven, vip(1)), "it is served all the same"
    assert plane.pushing.learning.kept() == {}
    assert not plane.pushing.learning.is_changed
    proven = proxy(plane)
    ask(proven, vip(2))
    assert [sorted(names) for names in plane.pushing.learning.kept().values()] == [[vip(2)]]
    assert all(who.startswith("spiffe://") for who in plane.pushing.learning.kept())
