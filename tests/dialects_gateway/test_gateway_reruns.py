"""What an edit of a Gateway API object touches, and that versions of a kind are one object."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from gateway_scenes import SCENES, Scene

from compile.world import CLUSTER, World
from tulle.compile.gateways import gateway_host
from tulle.dialects.gateway_api.kinds import KINDS
from tulle.dialects.gateway_api.listeners import secret_namespaces
from tulle.dialects.gateway_api.status import status_of
from tulle.dialects.inputs import objects
from tulle.dialects.reading import read
from tulle.model.keys import ObjectKey
from tulle.xds.names import TypeUrl

BY_NAME = {folder.name: folder for folder in SCENES}


def documents() -> Iterator[dict[str, Any]]:
    for folder in SCENES:
        for raw in yaml.safe_load_all((folder / "in.yaml").read_text()):
            if raw and raw["apiVersion"].startswith("gateway.networking.k8s.io/"):
                yield raw


@pytest.mark.parametrize("kind", [kind for kind in KINDS if len(kind.versions) > 1], ids=lambda kind: kind.kind)
def test_every_served_version_is_the_same_object(kind: Any) -> None:
    written = [raw for raw in documents() if raw["kind"] == kind.kind]
    assert written or kind.kind in ("BackendTLSPolicy", "UDPRoute")
    for raw in written:
        found = [read({**raw, "apiVersion": f"{kind.group}/{version}"}).object for version in kind.versions]
        assert None not in found
        assert all(one == found[0] for one in found)


def test_an_edit_of_a_route_resends_its_hosts_alone() -> None:
    world = Scene(BY_NAME["precedence_across_routes"]).world
    before = world.resources("infra", "gw-1")
    world.put(
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a-name, namespace: infra, creationTimestamp: "2026-02-02T00:00:00Z"}
spec:
  parentRefs: [{name: gw}]
  hostnames: [example.net]
  rules: [{name: changed, backendRefs: [{name: one, port: 8080}]}]
"""
    )
    after = world.resources("infra", "gw-1")
    held = before[TypeUrl.VHDS]
    changed = {name for name, found in after[TypeUrl.VHDS].items() if held[name].version != found.version}
    assert changed == {"http.80/example.net"}
    assert all(after[url] is before[url] for url in after if url is not TypeUrl.VHDS)


def test_an_edit_of_a_route_computes_its_host_alone() -> None:
    world = Scene(BY_NAME["precedence_across_routes"]).world
    world.resources("infra", "gw-1")
    view = world.view("infra", "gw-1")
    assert view.gateway is not None
    old = gateway_host(world.db, view.gateway, view.outbound, "http.80", "example.com")
    world.put(
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a-name, namespace: infra, creationTimestamp: "2026-02-02T00:00:00Z"}
spec:
  parentRefs: [{name: gw}]
  hostnames: [example.net]
  rules: [{name: changed, backendRefs: [{name: one, port: 8080}]}]
"""
    )
    assert gateway_host(world.db, view.gateway, view.outbound, "http.80", "example.com") is old


def test_observed_generation_is_that_of_the_object() -> None:
    world = Scene(BY_NAME["parents"]).world
    (key,) = (key for key in world.source.objects if (key.kind, key.name) == ("HTTPRoute", "both"))
    status = status_of(world.db, key)
    assert status is not None
    assert [one["observedGeneration"] for one in status["parents"][0]["conditions"]] == [7, 7]


def test_what_is_of_no_kind_of_ours_has_no_status() -> None:
    world: World = Scene(BY_NAME["parents"]).world
    for key in world.source.objects:
        if key.kind == "Service" or key.name in ("foreign", "others", "missing"):
            assert status_of(world.db, key) is None, key


def test_secrets_are_asked_for_where_listeners_may_refer_to_them() -> None:
    world = Scene(BY_NAME["certificates"]).world
    assert secret_namespaces(world.db, CLUSTER) == {"infra", "certs"}


def test_policies_for_backends_come_and_go() -> None:
    """After every step the clusters are those of a world that never knew another: with each policy, then without each of them."""
    text = (BY_NAME["backend_tls"] / "in.yaml").read_text()
    whole = Scene(BY_NAME["backend_tls"]).world
    final = whole.resources("infra", "gw-1")[TypeUrl.CDS]
    policies = [raw for raw in yaml.safe_load_all(text) if raw and raw["kind"] in ("BackendTLSPolicy", "ConfigMap")]
    with whole.db.edit() as tx:
        for raw in policies:
            group = raw["apiVersion"].rpartition("/")[0]
            tx.delete(objects, ObjectKey(CLUSTER, group, raw["kind"], "infra", raw["metadata"]["name"]))
    bare = whole.resources("infra", "gw-1")[TypeUrl.CDS]
    assert sum(bare[name].version != final[name].version for name in bare) == 10
    for raw in policies:
        whole.put(yaml.safe_dump(raw))
        whole.resources("infra", "gw-1")
    again = whole.resources("infra", "gw-1")[TypeUrl.CDS]
    assert {name: one.version for name, one in again.items()} == {name: one.version for name, one in final.items()}
