"""Pods as workloads: who owns them, what metrics call them, and whether a sidecar is in front."""

import pytest
from kubernetes_worlds import C, pod, put, world

from tulle.dialects.kubernetes import registry
from tulle.dialects.kubernetes.injection import Role, injects
from tulle.model.keys import WorkloadKey

A = WorkloadKey(C, "shop", "a")
ON = {"istio-injection": "enabled"}
OFF = {"istio-injection": "disabled"}
YES = {"sidecar.istio.io/inject": "true"}
NO = {"sidecar.istio.io/inject": "false"}


@pytest.mark.parametrize(
    ("namespace", "labels", "annotations", "role"),
    [
        ({}, {}, {}, Role.NONE),
        (ON, {}, {}, Role.SIDECAR),
        (ON, NO, {}, Role.NONE),
        (ON, {}, NO, Role.NONE),
        (ON, YES, NO, Role.SIDECAR),
        (ON, NO, YES, Role.NONE),
        ({}, YES, {}, Role.SIDECAR),
        ({}, {}, YES, Role.SIDECAR),
        (OFF, YES, {}, Role.NONE),
        ({"istio.io/rev": "stable"}, {}, {}, Role.SIDECAR),
        ({}, {"istio.io/rev": "stable"}, {}, Role.SIDECAR),
        ({}, {}, {"inject.istio.io/templates": "gateway"}, Role.GATEWAY),
        ({}, NO, {"inject.istio.io/templates": "gateway"}, Role.NONE),
    ],
)
def test_injection(namespace, labels, annotations, role):
    assert injects(namespace, labels, annotations).role is role


def test_host_network_and_gateway_images():
    assert injects(ON, YES, {}, host_network=True).role is Role.NONE
    labels = {"istio": "ingressgateway", **YES}
    assert injects({}, labels, {}, images=["auto"]).role is Role.GATEWAY
    assert injects({}, labels, {}, images=["nginx"]).role is Role.SIDECAR


def found(text, *more):
    return registry.workload(world(text, *more), A)


def test_owner_and_canonical_names():
    owner = ", ownerReferences: [{kind: ReplicaSet, name: web-v1-77f, controller: true}]"
    one = found(pod("a", "10.0.0.1", labels="app: web, version: v1, pod-template-hash: 77f", extra=owner))
    assert (one.owner, one.canonical_service, one.canonical_revision) == ("web-v1", "web", "v1")
    bare = found(pod("a", "10.0.0.1", labels="x: y"))
    assert (bare.owner, bare.canonical_service, bare.canonical_revision) == ("a", "a", "latest")
    cron = ", ownerReferences: [{kind: Job, name: nightly-29012345, controller: true}]"
    assert found(pod("a", "10.0.0.1", extra=cron)).owner == "nightly"
    named = found(
        pod("a", "10.0.0.1", labels="app: web, app.kubernetes.io/name: shop, service.istio.io/canonical-revision: r2")
    )
    assert (named.canonical_service, named.canonical_revision) == ("shop", "r2")


def test_a_sidecar_is_what_runs_or_what_would_be_injected():
    namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}"
    assert not found(pod("a", "10.0.0.1")).has_sidecar
    assert found(pod("a", "10.0.0.1"), namespace).has_sidecar
    assert not found(pod("a", "10.0.0.1", extra=", annotations: {tulle.dev/sidecar: 'false'}"), namespace).has_sidecar
    assert found(pod("a", "10.0.0.1", extra=", annotations: {tulle.dev/sidecar: 'true'}")).has_sidecar
    assert found(pod("a", "10.0.0.1").replace("[{name: web,", "[{name: istio-proxy}, {name: web,")).has_sidecar
    gateway = found(pod("a", "10.0.0.1", extra=", annotations: {inject.istio.io/templates: gateway}"))
    assert gateway.has_sidecar
    assert gateway.is_gateway


def test_on_a_node_a_pod_is_what_runs():
    """Its namespace got the label later, or the webhook was away: peers must not speak mTLS to it."""
    namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}"
    bound = pod("a", "10.0.0.1").replace("spec: {", "spec: {nodeName: n1, ")
    assert not found(bound, namespace).has_sidecar
    assert found(
        bound.replace("containers: [", "initContainers: [{name: istio-proxy}], containers: ["), namespace
    ).has_sidecar
    gateway = pod("a", "10.0.0.1", extra=", annotations: {inject.istio.io/templates: gateway}")
    assert not found(gateway.replace("spec: {", "spec: {nodeName: n1, ")).is_gateway


@pytest.mark.parametrize(
    ("namespace", "labels", "revisions", "role"),
    [
        (ON, {}, {"default"}, Role.SIDECAR),
        (ON, {}, {"canary"}, Role.NONE),
        (ON, {"istio.io/rev": "canary"}, {"canary"}, Role.NONE),
        ({"istio.io/rev": "canary"}, {}, {"canary"}, Role.SIDECAR),
        ({"istio.io/rev": "canary"}, {"istio.io/rev": "stable"}, {"canary"}, Role.SIDECAR),
        ({"istio.io/rev": "prod"}, {}, {"1-2", "prod"}, Role.SIDECAR),
        ({"istio.io/rev": "prod"}, {}, {"default"}, Role.NONE),
        ({**ON, "istio.io/rev": "prod"}, {}, {"prod"}, Role.NONE),
        ({}, YES, {"default"}, Role.SIDECAR),
        ({}, YES, {"canary"}, Role.NONE),
        ({}, {**YES, "istio.io/rev": "canary"}, {"canary"}, Role.SIDECAR),
    ],
)
def test_revisions(namespace, labels, revisions, role):
    assert injects(namespace, labels, {}, revisions=revisions).role is role


def test_locality():
    assert found(pod("a", "10.0.0.1", labels="istio-locality: eu.eu-1.rack")).locality == "eu/eu-1/rack"
    both = "topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-1"
    assert found(pod("a", "10.0.0.1", labels=both)).locality == "eu/eu-1"


def test_a_label_of_the_namespace_reaches_its_pods():
    db = world(pod("a", "10.0.0.1"))
    assert not registry.workload(db, A).has_sidecar
    put(db, "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}")
    assert registry.workload(db, A).has_sidecar
