"""A cluster as a source, against a real API: what changes, what is refused, what comes later, what is cut off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from api_parts import Place, place_in, relayed, until
from kubelab.cluster import Cluster

from tulle.dialects.kinds import KindRead
from tulle.dialects.reading import KINDS_READ
from tulle.kube.access import Access
from tulle.kube.errors import NoCluster, Refused, Unreachable
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem
from tulle.sources import kubernetes
from tulle.sources.cluster_namespaces import LabelSelector, selected_by
from tulle.sources.kubernetes import KubernetesSource

pytestmark = [pytest.mark.cluster, pytest.mark.long]

CORE = [KINDS_READ["", kind] for kind in ("Namespace", "Service", "Pod")]


@pytest.fixture
async def access(cluster: Cluster) -> AsyncIterator[Access]:
    async with Access.from_kubeconfig(cluster.kubeconfig) as access:
        yield access


@asynccontextmanager
async def source_of(access: Access, *args: Any, **named: Any) -> AsyncIterator[KubernetesSource]:
    source = KubernetesSource(access, *args, **named)
    try:
        await source.start()
        async with asyncio.timeout(20):
            await source.synced()
        yield source
    finally:
        await source.close()


def key_of(place: Place, kind: str, name: str, group: str = "") -> ObjectKey:
    return ObjectKey("Kubernetes", group, kind, place.name, name)


def drained(source: KubernetesSource) -> tuple[set[ObjectKey], set[ObjectKey]]:
    sets: set[ObjectKey] = set()
    deletes: set[ObjectKey] = set()
    while source.pending:
        change = source.pending.popleft().change
        sets |= {found.key for found in change.sets}
        deletes |= set(change.deletes)
    return sets, deletes


async def test_what_is_there_what_comes_what_changes_and_what_goes(access: Access) -> None:
    async with place_in(access) as place:
        await place.service("before")
        async with source_of(access, CORE) as source:
            before, after = key_of(place, "Service", "before"), key_of(place, "Service", "after")
            assert source.get(before) is not None
            assert before in drained(source)[0]
            await place.service("after", port=8080)
            await until(lambda: source.get(after))
            assert drained(source) == ({after}, set())
            await place.merge(place.path("services", "after"), {"metadata": {"labels": {"a": "b"}}})
            await until(lambda: source.get(after).labels == (("a", "b"),))
            assert drained(source) == ({after}, set())
            await access.send("DELETE", place.path("services", "after"))
            await until(lambda: source.get(after) is None)
            assert drained(source) == (set(), {after})
            assert str(source.locate(Origin(before, "spec.ports"))) == f"Service/{place.name}/before"
            assert source.locate(Origin(after)) is None


async def test_what_nobody_reads_is_no_change(access: Access) -> None:
    async with place_in(access) as place, source_of(access, CORE) as source:
        await place.pod("one")
        await until(lambda: source.get(key_of(place, "Pod", "one")))
        await asyncio.sleep(0.3)
        drained(source)
        await place.merge(place.path("pods", "one/status"), {"status": {"message": "a heartbeat"}})
        await place.service("proof")
        await until(lambda: source.get(key_of(place, "Service", "proof")))
        await asyncio.sleep(0.3)
        assert key_of(place, "Pod", "one") not in drained(source)[0]


async def test_a_pod_that_is_over_is_gone(access: Access) -> None:
    async with place_in(access) as place, source_of(access, CORE) as source:
        await place.pod("job")
        await until(lambda: source.get(key_of(place, "Pod", "job")))
        await place.merge(place.path("pods", "job/status"), {"status": {"phase": "Succeeded"}})
        await until(lambda: source.get(key_of(place, "Pod", "job")) is None)


async def test_what_happened_while_the_api_was_away_is_seen_when_it_is_back(
    cluster: Cluster, access: Access, tmp_path: Path
) -> None:
    async with (
        place_in(access) as place,
        relayed(cluster.kubeconfig, tmp_path) as relay,
        Access.from_kubeconfig(relay.kubeconfig) as through,
        source_of(through, CORE) as source,
    ):
        await place.service("stays")
        await place.service("goes")
        await until(lambda: source.get(key_of(place, "Service", "goes")))
        await relay.cut()
        await until(lambda: any(one.problem.code == "TUL1005" for one in source.reported))
        await access.send("DELETE", place.path("services", "goes"))
        await place.service("comes")
        await asyncio.sleep(1)
        assert source.get(key_of(place, "Service", "goes")) is not None, "fail static"
        await relay.mend()
        await until(lambda: source.get(key_of(place, "Service", "comes")))
        await until(lambda: source.get(key_of(place, "Service", "goes")) is None)
        assert source.get(key_of(place, "Service", "stays")) is not None
        await until(lambda: source.reported == ())


LATER = "later.tulle.test"


def definition(name: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}s.{LATER}"},
        "spec": {
            "group": LATER,
            "scope": "Namespaced",
            "names": {"plural": f"{name}s", "singular": name, "kind": name.capitalize()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def test_a_kind_that_comes_later_and_goes(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "POLL_S", 0.2)
    monkeypatch.setattr(kubernetes, "UNSERVED_S", 1.0)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with place_in(access) as place:
        name = f"thing{place.name.removeprefix('kube-')}"
        kind = KindRead(LATER, name.capitalize(), ("v1",), dict, requires_root=False)
        key = key_of(place, kind.kind, "one", LATER)
        async with source_of(access, [*CORE, kind]) as source:
            assert source.reported == ()
            await place.post(definitions, definition(name))
            try:
                made = {"apiVersion": f"{LATER}/v1", "kind": kind.kind, "metadata": {"name": "one"}, "spec": {"a": 1}}
                path = place.path(f"{name}s", root=f"/apis/{LATER}/v1")
                await _accepted(place, path, made)
                await until(lambda: source.get(key))
            finally:
                await access.send("DELETE", f"{definitions}/{name}s.{LATER}")
            await until(lambda: source.get(key) is None)
            await until(lambda: (LATER, kind.kind) not in {one.kind for one in source._followed.values()})


async def _accepted(place: Place, path: str, document: dict[str, Any]) -> None:
    for _ in range(100):
        try:
            await place.post(path, document)
        except Refused as refused:
            if refused.status != 404:
                raise
            await asyncio.sleep(0.1)
        else:
            return
    pytest.fail("the kind was never served")


def _no_666(service: Any, origin: Origin) -> tuple[Problem, ...]:
    is_bad = any(port.port == 666 for port in service.ports or ())
    return (problem("TUL0301", origin.at("ports")),) if is_bad else ()


async def test_an_object_that_is_refused_goes_on_as_it_was(access: Access) -> None:
    kind = msgspec.structs.replace(KINDS_READ["", "Service"], check=_no_666)
    async with place_in(access) as place, source_of(access, [kind]) as source:
        key = key_of(place, "Service", "one")
        await place.service("one")
        await until(lambda: source.get(key))
        good = source.get(key)
        await place.merge(place.path("services", "one"), {"spec": {"ports": [{"port": 666}]}})
        await until(lambda: source.problems_of(key))
        assert source.get(key) is good
        assert [str(one.place) for one in source.reported] == [f"Service/{place.name}/one"]
        await place.service("bad", port=666)
        await until(lambda: source.problems_of(key_of(place, "Service", "bad")))
        assert source.get(key_of(place, "Service", "bad")) is None
        await place.merge(place.path("services", "one"), {"spec": {"ports": [{"port": 81}]}})
        await until(lambda: source.get(key) != good)
        await access.send("DELETE", place.path("services", "bad"))
        await until(lambda: source.reported == ())


async def test_namespaces_come_into_use_and_out_of_it_by_label(access: Access) -> None:
    selectors = [LabelSelector(match_labels={"mesh": "kube-test"})]
    async with place_in(access) as out, place_in(access, mesh="kube-test") as used:
        for place in (out, used):
            await place.service("one")
        async with source_of(access, CORE, is_selected=selected_by(selectors)) as source:
            assert {key.namespace for key in source.objects if key.kind == "Service"} == {used.name}
            assert ObjectKey("Kubernetes", "", "Namespace", "", out.name) not in source.objects
            await out.merge(f"/api/v1/namespaces/{out.name}", {"metadata": {"labels": {"mesh": "kube-test"}}})
            await until(lambda: source.get(key_of(out, "Service", "one")))
            await out.service("two")
            await until(lambda: source.get(key_of(out, "Service", "two")))
            await used.merge(f"/api/v1/namespaces/{used.name}", {"metadata": {"labels": {"mesh": None}}})
            await until(lambda: source.get(key_of(used, "Service", "one")) is None)
            assert ObjectKey("Kubernetes", "", "Namespace", "", used.name) not in source.objects
            await used.service("three")
            await out.service("proof")
            await until(lambda: source.get(key_of(out, "Service", "proof")))
            await asyncio.sleep(0.3)
            assert source.get(key_of(used, "Service", "three")) is None


async def _as_account(cluster: Cluster, place: Place, tmp_path: Path) -> Access:
    """As the namespace's own service account, which may do what it is granted."""
    whole = yaml.safe_load(cluster.kubeconfig.read_text())
    request = await place.post(place.path("serviceaccounts", "default/token"), {"spec": {"expirationSeconds": 600}})
    whole["users"][0]["user"] = {"token": request["status"]["token"]}
    (tmp_path / "account.kubeconfig").write_text(yaml.safe_dump(whole))
    return Access.from_kubeconfig(tmp_path / "account.kubeconfig")


async def test_secrets_are_read_where_it_is_said_with_a_right_for_that_place(
    cluster: Cluster, access: Access, tmp_path: Path
) -> None:
    async with place_in(access) as place, place_in(access) as other:
        for one in (place, other):
            await one.post(one.path("secrets"), {"metadata": {"name": "key"}, "stringData": {"k": "v"}})
        async with await _as_account(cluster, place, tmp_path) as account, source_of(account, []) as source:
            source.follow(("", "Secret"), [(place.name, ""), (place.name, "key")])
            async with asyncio.timeout(10):
                await source.synced()
            assert [one.problem.code for one in source.reported] == ["TUL1005"]
            assert "Secret" in source.reported[0].problem.text
            await _grant(place)
            await until(lambda: source.get(key_of(place, "Secret", "key")))
            assert source.reported == ()
            assert [key.namespace for key in source.objects] == [place.name]
            (reloaded,) = [one for one in source.pending if one.change.private]
            assert reloaded.change.private[key_of(place, "Secret", "key")].entry("k") == b"v"
            drained(source)
            source.follow(("", "Secret"), [])
            assert drained(source) == (set(), {key_of(place, "Secret", "key")})
            assert not source.objects


async def _grant(place: Place) -> None:
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]
    root = "/apis/rbac.authorization.k8s.io/v1"
    await place.post(place.path("roles", root=root), {"metadata": {"name": "reads"}, "rules": rules})
    binding = {
        "metadata": {"name": "reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reads"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": place.name}],
    }
    await place.post(place.path("rolebindings", root=root), binding)


async def test_one_secret_by_its_name(access: Access) -> None:
    async with place_in(access) as place, source_of(access, []) as source:
        for name in ("wanted", "other"):
            await place.post(place.path("secrets"), {"metadata": {"name": name}, "stringData": {"k": name}})
        source.follow(("", "Secret"), [(place.name, "wanted")])
        await until(lambda: source.get(key_of(place, "Secret", "wanted")))
        await asyncio.sleep(0.2)
        assert source.get(key_of(place, "Secret", "other")) is None


async def test_a_list_of_many_pages(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulle.kube.reflector.PAGE", 3)
    async with place_in(access) as place:
        for number in range(8):
            await place.service(f"s{number}")
        async with source_of(access, CORE) as source:
            found = {key.name for key in source.objects if key.namespace == place.name and key.kind == "Service"}
            assert found == {f"s{number}" for number in range(8)}
            await place.service("later")
            await until(lambda: source.get(key_of(place, "Service", "later")))


async def test_errors_have_codes(access: Access, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        await access.get("/api/v1/namespaces/none/pods/none")
    assert (refused.value.status, refused.value.problem().code) == (404, "TUL1004")
    with pytest.raises(NoCluster):
        Access.from_kubeconfig(tmp_path / "none")
    async with Access.from_server("http://127.0.0.1:9") as nobody:
        with pytest.raises(Unreachable):
            await nobody.get("/api")
