"""Objects as the API sends them: quickly read ones equal those that a manifest gives."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tulle.dialects.reading import KINDS_READ, read
from tulle.kube.discovery import Resource
from tulle.model.keys import ObjectKey
from tulle.sources.cluster_objects import LAST_APPLIED, Found, decoder_of

META = {
    "name": "one",
    "namespace": "shop",
    "uid": "u-1",
    "resourceVersion": "77",
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {"app": "one", "version": "v1"},
    "annotations": {"sidecar.istio.io/inject": "true"},
    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": META,
    "spec": {
        "clusterIP": "10.0.0.7",
        "clusterIPs": ["10.0.0.7"],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP", "nodePort": 0}],
        "selector": {"app": "one"},
    },
    "status": {"loadBalancer": {}},
}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": META
    | {
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "one-1", "controller": True}],
        "deletionTimestamp": "2026-01-02T00:00:00Z",
    },
    "spec": {
        "containers": [
            {"name": "web", "image": "web:1", "ports": [{"containerPort": 8080, "name": "web"}], "resources": {}}
        ],
        "serviceAccountName": "one",
        "nodeName": "n1",
    },
    "status": {"phase": "Running", "podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
}
SLICE: dict[str, Any] = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": META,
    "addressType": "IPv4",
    "endpoints": [
        {"addresses": ["10.1.0.1"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "one"}}
    ],
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
}
ROUTE: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": META | {"generation": 3},
    "spec": {"hosts": ["one"], "http": [{"route": [{"destination": {"host": "one"}}]}]},
    "status": {"conditions": []},
}
NAMESPACE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "uid": "n", "labels": {"istio-injection": "enabled"}},
}


def found_in(raw: dict[str, Any], *, is_bare: bool = False) -> Found:
    group, _, version = raw["apiVersion"].rpartition("/")
    kind = KINDS_READ[group, raw["kind"]]
    resource = Resource(group, version, raw["kind"].lower() + "s", raw["kind"], kind.scope == "Namespaced")
    sent = {name: part for name, part in raw.items() if not is_bare or name not in ("apiVersion", "kind")}
    item = decoder_of(kind, resource, "Kubernetes")(Raw(json.dumps(sent).encode()))
    found: Found = item.value
    assert item.name == (raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
    assert item.version == raw["metadata"].get("resourceVersion", "")
    return found


@pytest.mark.parametrize("is_bare", [False, True], ids=["of a watch", "of a list"])
@pytest.mark.parametrize("raw", [SERVICE, POD, SLICE, ROUTE, NAMESPACE], ids=lambda raw: raw["kind"])
def test_an_object_is_what_its_manifest_is(raw: dict[str, Any], *, is_bare: bool) -> None:
    expected = read(json.loads(json.dumps(raw)), "Kubernetes", "")
    found = found_in(raw, is_bare=is_bare)
    assert found.object == expected.object
    assert found.object is not None
    assert found.key == expected.key
    assert found.problems == expected.problems


def test_a_field_that_nobody_reads_changes_nothing() -> None:
    later = json.loads(json.dumps(POD))
    later["metadata"]["resourceVersion"] = "78"
    later["status"]["conditions"][0]["lastProbeTime"] = "2026-01-01T00:00:09Z"
    assert found_in(later).object == found_in(POD).object


def test_the_text_of_the_last_apply_is_not_kept() -> None:
    for raw in (SERVICE, ROUTE):
        noisy = json.loads(json.dumps(raw))
        noisy["metadata"]["annotations"][LAST_APPLIED] = json.dumps(raw)
        assert found_in(noisy).object == found_in(raw).object


def test_the_generation_is_told_even_of_what_is_refused() -> None:
    bad = json.loads(json.dumps(ROUTE))
    bad["spec"]["htttp"] = []
    found = found_in(bad)
    assert found.object is None
    assert [one.code for one in found.problems] == ["TUL0113"]
    assert found.generation == 3
    assert found.key == ObjectKey("Kubernetes", "networking.istio.io", "VirtualService", "shop", "one")


def test_a_service_that_does_not_fit_is_refused_with_its_field() -> None:
    bad = json.loads(json.dumps(SERVICE))
    bad["spec"]["ports"][0]["port"] = 99999
    found = found_in(bad)
    assert found.object is None
    assert found.problems
    assert found.problems[0].origin.path.startswith("spec.ports")


def test_what_is_no_object_is_an_error_of_the_line() -> None:
    decode = decoder_of(KINDS_READ["", "Service"], Resource("", "v1", "services", "Service"), "Kubernetes")
    for text in (b"[]", b'{"metadata": 5}', b'{"spec": {}}', b'{"metadata": {"labels": {}}}'):
        with pytest.raises(msgspec.MsgspecError):
            decode(Raw(text))


def test_a_rule_that_breaks_does_not_break_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("with a secret in its text")

    monkeypatch.setattr("tulle.sources.cluster_objects.read", broken)
    found = found_in(ROUTE)
    assert found.object is None
    assert [one.code for one in found.problems] == ["TUL1006"]
    assert "secret" not in found.problems[0].text


def test_a_secret_keeps_its_bytes_out_of_the_object() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": META, "type": "Opaque", "data": {"k": "aHVudGVyMg=="}}
    found = found_in(secret)
    assert found.object is not None
    assert "hunter2" not in repr(found)
    assert found.private.entry("k") == b"hunter2"
