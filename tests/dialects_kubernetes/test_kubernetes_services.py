"""Services: what a port speaks, VIPs, headless, ExternalName, visibility, and where its ports may be reached."""

import re

import pytest
from kubernetes_worlds import C, as_object, pod, put, service, world

from tulle.dialects.kubernetes import namespaces, registry
from tulle.dialects.kubernetes.protocols import port_protocol
from tulle.model.intent import PortProtocol, Resolution
from tulle.model.keys import ServiceKey, WorkloadKey

WEB = ServiceKey(C, "shop", "web.shop.svc.cluster.local")


@pytest.mark.parametrize(
    ("number", "name", "ip", "app", "expected"),
    [
        (80, "http", "TCP", None, "HTTP"),
        (80, "http-web", "TCP", None, "HTTP"),
        (80, "HTTP2-x", "TCP", None, "HTTP2"),
        (80, "httpx", "TCP", None, "AUTO"),
        (80, "grpc-web-1", "TCP", None, "GRPC"),
        (80, "mysql", "TCP", None, "TCP"),
        (443, "https", "TCP", None, "HTTPS"),
        (443, "tls-db", "TCP", None, "TLS"),
        (80, "tcp", "TCP", "http", "HTTP"),
        (80, "http", "TCP", "example.com/own", "AUTO"),
        (80, "", "TCP", "kubernetes.io/h2c", "HTTP2"),
        (80, "", "TCP", "kubernetes.io/ws", "HTTP"),
        (3306, "db", "TCP", None, "TCP"),
        (27017, "", "TCP", None, "TCP"),
        (3306, "http", "TCP", None, "HTTP"),
        (53, "http", "UDP", "http", "UDP"),
        (8080, "", "TCP", None, "AUTO"),
    ],
)
def test_protocol_selection(number, name, ip, app, expected):
    assert port_protocol(number, name, ip, app) is PortProtocol(expected)


def test_cluster_ip_service():
    db = world(
        service(
            "web",
            "clusterIP: 10.0.0.1, selector: {app: web}, ports: [{port: 80, targetPort: http, name: http}, {port: 81}]",
        )
    )
    found = registry.service(db, WEB)
    assert found.addresses == ("10.0.0.1",)
    assert found.resolution is Resolution.STATIC
    assert [(p.number, p.target, p.protocol) for p in found.ports] == [(80, "http", "HTTP"), (81, 81, "AUTO")]
    assert found.selector == (("app", "web"),)
    assert found.exported_to == ("*",)
    assert registry.services_in(db, C, "shop") == (found,)
    assert namespaces(db, C) == ("shop",)


def test_headless_has_no_vip():
    db = world(service("web", 'clusterIP: "None", clusterIPs: ["None"], selector: {app: web}, ports: [{port: 80}]'))
    found = registry.service(db, WEB)
    assert (found.addresses, found.resolution) == ((), Resolution.HEADLESS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(".", ("shop",)), ("*", ("*",)), ("~", ()), ("., other", ("other", "shop")), ("", ("*",))],
)
def test_export_to(words, expected):
    db = world(service("web", "ports: [{port: 80}]", f", annotations: {{networking.istio.io/exportTo: '{words}'}}"))
    assert registry.service(db, WEB).exported_to == expected


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-abc, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.1.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: b, namespace: shop}}
- {addresses: [10.1.0.1], conditions: {}, targetRef: {kind: Pod, name: a, namespace: shop}}
- {addresses: [10.1.0.3], conditions: {ready: false}, targetRef: {kind: Pod, name: c, namespace: shop}}
"""


def test_slices_and_pods_give_equal_endpoints():
    text = service("web", "selector: {app: web}, ports: [{port: 80, targetPort: http, name: http}]")
    pods = [
        pod("b", "10.1.0.2"),
        pod("a", "10.1.0.1"),
        pod("c", "10.1.0.3", ready=False),
        pod("z", "10.1.0.9", labels="app: other"),
    ]
    by_pods = registry.endpoints(world(text, *pods), WEB, 80)
    by_slices = registry.endpoints(world(text, *pods, SLICE), WEB, 80)
    assert by_pods == by_slices
    assert [(e.address, e.port, e.workload.name) for e in by_pods] == [("10.1.0.1", 8080, "a"), ("10.1.0.2", 8080, "b")]
    assert by_pods[0].service_account == "web"


def test_an_address_alone_is_the_pod_of_its_namespace_that_has_it():
    """Slices that people write say no targetRef; without the pod's identity they would be called in plain text."""
    text = service("web", "ports: [{port: 80, targetPort: http, name: http}]")
    piece = re.sub(r", targetRef: [^}]*}", "", SLICE)
    over = pod("old", "10.1.0.2").replace("Running", "Succeeded")
    found = registry.endpoints(world(text, over, pod("b", "10.1.0.2"), piece), WEB, 80)
    assert [(e.address, e.workload.name if e.workload else None, e.service_account) for e in found] == [
        ("10.1.0.1", None, ""),
        ("10.1.0.2", "b", "web"),
    ]


def test_endpoints_leave_out_pods_that_leave_unless_the_service_publishes_them():
    base = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"
    pods = [
        pod("a", "10.1.0.1", extra=", deletionTimestamp: '2026-01-01T00:00:00Z'"),
        pod("b", "10.1.0.2", ready=False),
        pod("c", "10.1.0.3"),
        pod("d", "10.1.0.4").replace("Running", "Failed"),
        pod("e", "''"),
    ]
    listed = registry.endpoints(world(service("web", base), *pods), WEB, 80)
    assert [e.address for e in listed] == ["10.1.0.3"]
    published = registry.endpoints(world(service("web", base + ", publishNotReadyAddresses: true"), *pods), WEB, 80)
    assert [e.address for e in published] == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]


def test_a_named_target_is_resolved_per_pod():
    other = pod("b", "10.1.0.2").replace("8080", "9090")
    nameless = pod("c", "10.1.0.3").replace("name: http}", "name: tcp}")
    text = service("web", "selector: {app: web}, ports: [{port: 80, targetPort: http}]")
    found = registry.endpoints(world(text, pod("a", "10.1.0.1"), other, nameless), WEB, 80)
    assert [(e.address, e.port) for e in found] == [("10.1.0.1", 8080), ("10.1.0.2", 9090)]


def test_external_name_to_a_mesh_host_is_its_alias():
    db = world(
        service("web", "selector: {app: web}, ports: [{port: 80}]"),
        service("nick", "type: ExternalName, externalName: web.shop.svc.cluster.local", ns="other"),
        service("nicknick", "type: ExternalName, externalName: nick.other.svc.cluster.local", ns="other"),
    )
    assert registry.service(db, WEB).aliases == ("nick.other.svc.cluster.local", "nicknick.other.svc.cluster.local")
    assert registry.services_in(db, C, "other") == ()
    assert registry.alias_target(db, ServiceKey(C, "other", "nicknick.other.svc.cluster.local")) == WEB.host


def test_external_name_out_of_the_mesh_is_resolved_by_dns():
    db = world(service("nick", "type: ExternalName, externalName: Example.com., ports: [{port: 80}]"))
    key = ServiceKey(C, "shop", "nick.shop.svc.cluster.local")
    found = registry.service(db, key)
    assert (found.resolution, found.external_name, found.is_external) == (Resolution.DNS, "example.com", True)
    assert [(e.address, e.port) for e in registry.endpoints(db, key, 80)] == [("example.com", 80)]


def test_external_names_in_a_circle_point_nowhere_and_end():
    db = world(
        service("a", "type: ExternalName, externalName: b.shop.svc.cluster.local"),
        service("b", "type: ExternalName, externalName: a.shop.svc.cluster.local"),
    )
    assert registry.alias_target(db, ServiceKey(C, "shop", "a.shop.svc.cluster.local")) == ""
    assert len(registry.services_in(db, C, "shop")) == 2


def test_a_workload_entry_is_selected_like_a_pod():
    machine = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop, labels: {app: web}}
spec: {address: 10.9.0.1, serviceAccount: web, weight: 3, ports: {http: 7070}}
"""
    text = service("web", "selector: {app: web}, ports: [{port: 80, targetPort: http, name: http}]")
    db = world(text, pod("a", "10.1.0.1"), machine)
    assert [(e.address, e.port, e.weight, e.has_sidecar) for e in registry.endpoints(db, WEB, 80)] == [
        ("10.1.0.1", 8080, 1, False),
        ("10.9.0.1", 7070, 3, True),
    ]
    assert registry.workload(db, WorkloadKey(C, "shop", "vm")).address == "10.9.0.1"
    assert registry.workloads_selected(db, C, "shop", (("app", "web"),)) == (
        WorkloadKey(C, "shop", "a"),
        WorkloadKey(C, "shop", "vm"),
    )
    assert registry.workloads_selected(db, C, "", (("app", "web"),)) == registry.workloads_selected(db, C, "shop", ())


def test_equal_objects_give_equal_answers_whatever_their_order():
    texts = [service("web", "selector: {app: web}, ports: [{port: 80}]"), pod("a", "10.1.0.1"), pod("b", "10.1.0.2")]
    one, other = world(*texts), world(*reversed(texts))
    assert registry.endpoints(one, WEB, 80) == registry.endpoints(other, WEB, 80)


def test_heartbeats_change_nothing():
    text = pod("a", "10.1.0.1")
    assert as_object_of(text) == as_object_of(text.replace("Ready,", "Ready, lastProbeTime: '2026',"))


def as_object_of(text):
    import yaml

    return as_object(yaml.safe_load(text))


def test_an_edit_to_nothing_is_no_revision():
    db = world(pod("a", "10.1.0.1"))
    before = db.revision
    put(db, pod("a", "10.1.0.1"))
    assert db.revision == before
