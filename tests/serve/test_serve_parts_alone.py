"""Parts of serving without sockets: claims, the vault, failures of one view, the overlay of what runs over what is written."""

import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from serve_parts import pod, service

from tulle.app.documents import document
from tulle.app.settings import Settings, SettingsRefusedError, load
from tulle.app.world import QueuedSource, World
from tulle.compile.views import OutboundView, View
from tulle.dialects.inputs import objects
from tulle.dialects.kubernetes.secret import SecretMaterial
from tulle.engine import Database, query
from tulle.identity.authority import Authority, Bundle, Signer, new_root
from tulle.identity.spiffe import spiffe_id
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.serve import shelves
from tulle.serve.nodes import Claim, claim_of
from tulle.serve.seats import seats
from tulle.serve.shelves import Shelves
from tulle.serve.vault import LEAF, ROOTS, Entitled, Vault
from tulle.xds import api
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource
from tulle.xds.wire import ClientNode

NOW = datetime.now(UTC)


def vault() -> Vault:
    root = new_root("cluster.local", NOW)
    leaf = Authority(Signer.of_root(root), "cluster.local").issue(
        spiffe_id("cluster.local", "shop", "web"), timedelta(hours=1), NOW
    )
    made = Vault()
    made.put_leaf("uid-1", leaf)
    made.put_bundle(Bundle((root.certificate_pem,)))
    pair = {"tls.crt": b"chain", "tls.key": b"the private key", "ca.crt": b"roots"}
    made.put("shop", "cert", SecretMaterial("kubernetes.io/tls", pair))
    return made


@pytest.mark.parametrize(
    ("node", "claim"),
    [
        (None, Claim("", "", "", "")),
        (ClientNode("", "", {}), Claim("", "", "", "")),
        (ClientNode("plain", "", {}), Claim("", "", "plain", "")),
        (
            ClientNode("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", "", {}),
            Claim("sidecar", "10.0.0.1", "web-1", "shop"),
        ),
        (
            ClientNode(
                "router~::1~gw.a.b~x", "", {"NAMESPACE": "said", "LABELS": {"b": "2", "a": 1}, "CLUSTER_ID": "c"}
            ),
            Claim("router", "::1", "gw.a", "said", (("a", ""), ("b", "2")), "c"),
        ),
        (ClientNode("~~~~~~~", "", {"NAMESPACE": 5, "LABELS": "x"}), Claim("", "", "", "")),
        (ClientNode("sidecar~1", "", {"NAMESPACE": "n" * 1000}), Claim("sidecar", "1", "", "")),
    ],
)
def test_a_claim_is_read_without_ever_failing(node: ClientNode | None, claim: Claim) -> None:
    assert claim_of(node) == claim


def test_the_vault_gives_each_identity_its_own() -> None:
    made = vault()
    names = ["kubernetes://shop/cert", "kubernetes://shop/cert-cacert", "kubernetes://other/cert", "nonsense"]
    gateway = Entitled("uid-1", "shop", is_gateway=True)
    shelf = made.shelf(gateway, names)
    assert set(shelf) == {LEAF, ROOTS, *names[:2]}
    read = made.reader(gateway)
    assert b"the private key" in (read(shelf["kubernetes://shop/cert"]) or b"")  # type: ignore[index]
    assert b"roots" in (read(shelf["kubernetes://shop/cert-cacert"]) or b"")  # type: ignore[index]
    for foreign in (Entitled("uid-2", "shop", is_gateway=False), Entitled("uid-2", "other", is_gateway=True)):
        assert set(made.shelf(foreign, names)) == {ROOTS}
        assert all(made.reader(foreign)(ref) is None for name, ref in shelf.items() if name != ROOTS)
    made.drop("shop", "cert")
    assert read(shelf["kubernetes://shop/cert"]) is None  # type: ignore[index]


def test_a_granted_secret_is_of_one_gateway_as_long_as_it_is_granted() -> None:
    made, names = vault(), ["kubernetes://shop/cert"]
    elsewhere = Entitled("uid-3", "front", is_gateway=True)
    shelf = made.shelf(elsewhere, names, granted=names)
    assert set(shelf) == {ROOTS, *names}
    ref = shelf["kubernetes://shop/cert"]  # type: ignore[index]
    assert b"the private key" in (made.reader(elsewhere)(ref) or b"")
    for other in (Entitled("uid-4", "front", is_gateway=True), Entitled("uid-3", "front", is_gateway=False)):
        assert made.reader(other)(ref) is None
    assert set(made.shelf(elsewhere, names)) == {ROOTS}
    assert made.reader(elsewhere)(ref) is None


def test_the_vault_does_not_show_itself() -> None:
    made = vault()
    assert "the private key" not in repr(made) + repr(vars(made)) + str(
        made.shelf(Entitled("uid-1", "shop", False), ())
    )
    with pytest.raises(TypeError):
        pickle.dumps(made)


def test_a_new_leaf_or_bundle_or_secret_is_another_version() -> None:
    made, who = vault(), Entitled("uid-1", "shop", is_gateway=True)
    before = made.shelf(who, ["kubernetes://shop/cert"])
    assert made.shelf(who, ["kubernetes://shop/cert"]) == before
    made.put("shop", "cert", SecretMaterial("kubernetes.io/tls", {"tls.crt": b"chain", "tls.key": b"another"}))
    after = made.shelf(who, ["kubernetes://shop/cert"])
    assert {name for name in before if before[name] != after[name]} == {"kubernetes://shop/cert"}


@query
def fragile(db: Database, view: View, names: frozenset[str]) -> dict[TypeUrl, dict[str, Resource]]:
    del names
    found = objects(db, ObjectKey("c", "", "Word", view.outbound.namespace, "x"))
    if found is not None and found.spec == "bad":
        raise ZeroDivisionError("a defect of ours")
    made = Resource.of(api.Cluster(name=str(found.spec if found else "")), "x")
    return {TypeUrl.CDS: {"x": made}}


def test_a_failing_view_keeps_its_last_good_state_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from tulle.model.objects import Object

    monkeypatch.setattr(shelves, "resources_held", fragile)
    db = Database()

    def write(namespace: str, word: str) -> None:
        key = ObjectKey("c", "", "Word", namespace, "x")
        with db.edit() as tx:
            tx.set(objects, key, Object(key, word))

    write("a", "good")
    made = Shelves(db)
    first, second = made.show(View(OutboundView("c", "a")), 1), made.show(View(OutboundView("c", "b")), 1)
    good = first.types
    write("a", "bad")
    write("b", "new")
    dirty = {made.of_root(root) for root in db.take_dirty_roots()}
    assert dirty == {first, second}
    assert (first.refresh(), second.refresh()) == (False, True)
    assert first.types is good
    assert first.bug is not None
    assert "ZeroDivisionError" in first.bug[0].text
    write("a", "better")
    assert first.refresh()
    assert first.bug is None
    never = made.show(View(OutboundView("c", "c")), 1)
    made.leave(never)
    assert len(made) == 2


def world(tmp_path: Path, config: list[Any], runtime: list[Any]) -> tuple[World, Database, Path]:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "a.yaml").write_text("\n---\n".join(map(json.dumps, config)))
    (tmp_path / "runtime.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": runtime}))
    db = Database()
    place = {"cluster": "Kubernetes", "namespace": "default"}
    made = World(db, Vault(), QueuedSource([folder], **place), QueuedSource([tmp_path / "runtime.json"], **place))
    made.load(Settings().mesh())
    return made, db, folder / "a.yaml"


def test_what_runs_is_laid_over_what_is_written(tmp_path: Path) -> None:
    config = [service("web", "shop"), pod("wished", "shop", "10.0.0.9")]
    made, db, path = world(tmp_path, config, [service("web", "shop", ip="10.96.0.9"), pod("real", "shop", "10.0.0.1")])
    key = ObjectKey("Kubernetes", "", "Service", "shop", "web")
    assert objects.snapshot(db)[key].spec.cluster_ip == "10.96.0.9"
    assert [seat.workload.name for seat in seats(db, "Kubernetes")] == ["real"]
    path.write_text(json.dumps(service("web", "shop", port=8080)))
    made.config.reload()
    assert made.take() is not None
    spec = objects.snapshot(db)[key].spec
    assert (spec.cluster_ip, spec.ports[0].port) == ("10.96.0.9", 8080), "newer than runtime.json, but for the address"
    assert made.take() is None
    place = made.locate(Origin(key))
    assert place is not None
    assert place.file == str(path)


def test_a_pods_uid_never_leaves_its_directory(tmp_path: Path) -> None:
    bad = pod("bad", "shop", "10.0.0.2", uid="../../evil")
    _, db, _ = world(tmp_path, [], [bad, pod("good", "shop", "10.0.0.1")])
    assert [seat.workload.name for seat in seats(db, "Kubernetes")] == ["good"]


def test_a_secret_is_shown_without_its_values(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: "
        '{kubectl.kubernetes.io/last-applied-configuration: "c2VjcmV0", keep: me}}\ndata: {tls.key: c2VjcmV0}\n'
    )
    shown = document(str(path), 1, "Secret", "a")
    assert shown is not None
    assert "c2VjcmV0" not in str(shown)
    assert shown["metadata"]["annotations"] == {"keep": "me"}
    assert document(str(path), 1, "Secret", "b") is None


def test_settings_are_read_or_refused_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"trustDomain": "example.org", "leafTtlSeconds": 10}')
    assert load(path).mesh().trust_domain == "example.org"
    assert load(path).timing().leaf_ttl_s == 10.0
    path.write_text('{"trustDoman": "example.org"}')
    with pytest.raises(SettingsRefusedError, match="trustDoman"):
        load(path)
