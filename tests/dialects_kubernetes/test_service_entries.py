"""ServiceEntries: hosts as services, addresses of the mesh's own, endpoints written or selected."""

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_worlds import C, pod, put, world

from tulle.dialects.istio.addresses import assigned
from tulle.dialects.kubernetes import registry
from tulle.dialects.reading import read
from tulle.model.intent import PortProtocol, Resolution
from tulle.model.keys import ServiceKey


def entry(name, spec, extra="", ns="shop"):
    return f"""
apiVersion: networking.istio.io/v1alpha3
kind: ServiceEntry
metadata: {{name: {name}, namespace: {ns}{extra}}}
spec: {{{spec}}}
"""


def key(host, ns="shop"):
    return ServiceKey(C, ns, host)


PAYPAL = entry(
    "paypal", "hosts: [PayPal.example.com], ports: [{number: 443, name: https, protocol: TLS}], resolution: DNS"
)


def test_a_host_resolved_by_dns_gets_an_address():
    db = world(PAYPAL)
    (found,) = registry.services_in(db, C, "shop")
    assert found.key == key("paypal.example.com")
    assert (found.resolution, found.is_external, found.is_kubernetes) == (Resolution.DNS, True, False)
    assert found.ports[0].protocol is PortProtocol.TLS
    assert found.addresses == found.auto_addresses
    assert found.addresses[0].startswith("240.240.")
    assert [(e.address, e.port) for e in registry.endpoints(db, found.key, 443)] == [("paypal.example.com", 443)]


def test_written_addresses_wildcards_none_and_opting_out_get_no_address():
    ports = "ports: [{number: 80, name: http}]"
    db = world(
        entry("a", f"hosts: [a.example], addresses: [192.0.2.0/24], {ports}, resolution: STATIC"),
        entry("b", f"hosts: ['*.b.example'], {ports}, resolution: DNS, endpoints: [{{address: b.example}}]"),
        entry("c", f"hosts: [c.example], {ports}, resolution: NONE"),
        entry(
            "d",
            f"hosts: [d.example], {ports}, resolution: DNS",
            ", labels: {networking.istio.io/enable-autoallocate-ip: 'false'}",
        ),
    )
    assert [one.auto_addresses for one in registry.services_in(db, C, "shop")] == [(), (), (), ()]
    assert registry.service(db, key("a.example")).addresses == ("192.0.2.0/24",)
    assert registry.endpoints(db, key("c.example"), 80) == ()
    assert [e.address for e in registry.endpoints(db, key("*.b.example"), 80)] == ["b.example"]


def test_other_entries_do_not_move_an_address():
    db = world(PAYPAL)
    before = registry.service(db, key("paypal.example.com")).addresses
    put(db, entry("many", f"hosts: [{', '.join(f'h{n}.example' for n in range(50))}], resolution: DNS"))
    with db.counting() as runs:
        assert registry.service(db, key("paypal.example.com")).addresses == before
    assert "entry_service" not in runs.by_query
    with db.counting() as runs:
        put(db, entry("far", "hosts: [far.example], resolution: DNS", ns="far"))
        assert registry.service(db, key("paypal.example.com")).addresses == before
    assert dict(runs.by_query) == {"allocations": 1, "unaddressed_hosts": 1, "allocated_in": 1}


names = st.tuples(st.sampled_from(["a", "b"]), st.text("abcdef", min_size=1, max_size=8))


@given(st.sets(names, max_size=60), st.randoms())
@settings(max_examples=60)
def test_assigned_addresses_are_unique_and_do_not_depend_on_order(wanted, random):
    shuffled = list(wanted)
    random.shuffle(shuffled)
    given_ = assigned(shuffled, "240.240.0.0/24")
    assert given_ == assigned(wanted, "240.240.0.0/24")
    assert len(set(given_.values())) == len(wanted) == len(given_)


def test_a_full_range_is_said_by_absence():
    given_ = assigned([("a", str(n)) for n in range(300)], "240.240.0.0/24")
    assert len(given_) == len(set(given_.values())) == 254


def test_written_endpoints():
    spec = """hosts: [db.example], ports: [{number: 5432, name: pg, protocol: TCP, targetPort: 15432}], location: MESH_INTERNAL,
      resolution: STATIC, endpoints: [{address: 10.0.0.2, weight: 3, labels: {version: v2}},
      {address: 10.0.0.1, ports: {pg: 6000}, serviceAccount: db, locality: eu/eu-1}]"""
    found = registry.endpoints(world(entry("db", spec)), key("db.example"), 5432)
    assert [(e.address, e.port, e.weight, e.has_sidecar, e.labels, e.locality) for e in found] == [
        ("10.0.0.1", 6000, 1, True, (), "eu/eu-1"),
        ("10.0.0.2", 15432, 3, False, (("version", "v2"),), ""),
    ]


def test_selected_pods_and_machines():
    machine = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 10.9.0.1, labels: {app: web}, ports: {http: 7070}}
"""
    spec = "hosts: [web.example], ports: [{number: 80, name: http, targetPort: 8080}], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: web}}"
    db = world(entry("web", spec), pod("a", "10.1.0.1"), pod("b", "10.1.0.2", ready=False), machine)
    found = registry.endpoints(db, key("web.example"), 80)
    assert [(e.address, e.port, e.workload.name) for e in found] == [("10.1.0.1", 8080, "a"), ("10.9.0.1", 7070, "vm")]


def test_two_entries_of_one_host_in_one_namespace_are_one_service():
    first = entry(
        "z",
        "hosts: [x.example], ports: [{number: 80, name: http}], resolution: STATIC, endpoints: [{address: 10.0.0.1}]",
        ", creationTimestamp: '2020'",
    )
    second = entry(
        "a",
        "hosts: [x.example], ports: [{number: 80, name: http}, {number: 81, name: tcp}], resolution: DNS, endpoints: [{address: 10.0.0.2}]",
        ", creationTimestamp: '2021'",
    )
    db = world(second, first)
    (found,) = registry.services_in(db, C, "shop")
    assert (found.resolution, [p.number for p in found.ports]) == (Resolution.STATIC, [80, 81])
    assert [e.address for e in registry.endpoints(db, found.key, 80)] == ["10.0.0.1", "10.0.0.2"]
    assert [e.address for e in registry.endpoints(db, found.key, 81)] == ["10.0.0.2"]


def test_the_same_host_in_two_namespaces_is_two_services_with_two_addresses():
    db = world(PAYPAL, PAYPAL.replace("namespace: shop", "namespace: other"))
    one, other = (registry.service(db, key("paypal.example.com", ns)) for ns in ("shop", "other"))
    assert one.addresses != other.addresses


def codes(spec):
    return [(problem.code, problem.origin.path) for problem in read(yaml.safe_load(entry("x", spec))).problems]


def test_problems():
    assert codes("hosts: [a.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS") == []
    assert codes("hosts: []") == [("TUL0320", "spec.hosts")]
    assert codes("hosts: ['*', 10.0.0.1, 'a b']") == [("TUL0321", f"spec.hosts[{n}]") for n in range(3)]
    assert codes("hosts: ['*.x.example'], resolution: DNS") == [("TUL0322", "spec.hosts[0]")]
    assert codes("hosts: [a.b], ports: [{number: 80, name: a}, {number: 80, name: a, protocol: WAT}]") == [
        ("TUL0323", "spec.ports[1].number"),
        ("TUL0323", "spec.ports[1].name"),
        ("TUL0324", "spec.ports[1].protocol"),
    ]
    assert codes("hosts: [a.b], addresses: [nowhere]") == [("TUL0325", "spec.addresses[0]")]
    assert codes(
        "hosts: [a.b], resolution: STATIC, endpoints: [{address: 10.0.0.1}], workloadSelector: {labels: {a: b}}"
    ) == [("TUL0326", "spec.workloadSelector")]
    assert codes("hosts: [a.b], endpoints: [{address: 10.0.0.1}]") == [("TUL0327", "spec.endpoints")]
    assert codes("hosts: [a.b], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.b}, {address: b.c}]") == [
        ("TUL0328", "spec.endpoints")
    ]
    assert codes("hosts: [a.b], resolution: STATIC, endpoints: [{address: a.b, ports: {x: 1}}]") == [
        ("TUL0329", "spec.endpoints[0].address"),
        ("TUL0331", "spec.endpoints[0].ports.x"),
    ]
