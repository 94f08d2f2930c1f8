"""What is made once for all ordinary clients is what each of them would have been given."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutating import mutations
from properties.worlds import CASES, database, decoded, scene
from tulle.compile import outbound
from tulle.compile.onlookers import onlooker
from tulle.compile.scope import service_table
from tulle.compile.snapshot import namespace_assignments, namespace_clusters, namespace_hosts, namespace_listeners
from tulle.compile.views import OutboundView
from tulle.dialects.kubernetes import namespaces
from tulle.xds.schema import from_any

NOWHERE = "a-namespace-without-anything"


def compared(db):
    """How many namespaces were seen with the eyes of everybody; each must look the same."""
    shared = 0
    for own in (*namespaces(db, "Kubernetes"), NOWHERE):
        view = OutboundView("Kubernetes", own)
        for place in service_table(db, "Kubernetes", own).places:
            eyes = onlooker(db, view, place)
            if eyes == view:
                continue
            shared += 1
            for made in (namespace_clusters, namespace_assignments, namespace_listeners):
                assert made(db, eyes, place) == made(db, view, place), (made, own, place)
            for port in outbound.http_ports(db, view):
                seen = namespace_hosts(db, eyes, port, place), namespace_hosts(db, view, port, place)
                assert seen[0] == seen[1], (own, place, port)
    return shared


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_in_every_golden(folder):
    compared(database(decoded(scene(folder))))


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_in_mutated_worlds(seed):
    for raws in mutations(seed, 2):
        compared(database(decoded(raws)))


def test_something_is_shared():
    assert sum(compared(database(decoded(scene(folder)))) for folder in CASES) > 20


def raw(kind, api, place, name, spec):
    return {"apiVersion": api, "kind": kind, "metadata": {"namespace": place, "name": name}, "spec": spec}


def core(place, name, address, **spec):
    ports = [{"port": 80, "name": "http"}]
    return raw("Service", "v1", place, name, {"clusterIP": address, "ports": ports, **spec})


def entry(place, name, *hosts):
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    spec = {
        "hosts": list(hosts),
        "ports": ports,
        "resolution": "NONE" if hosts[0][0] == "*" else "DNS",
        "location": "MESH_EXTERNAL",
    }
    return raw("ServiceEntry", "networking.istio.io/v1", place, name, spec)


ALIAS = [
    core("data", "postgres", "10.96.0.1"),
    raw("Service", "v1", "shop", "db", {"type": "ExternalName", "externalName": "postgres.data.svc.cluster.local"}),
    core("shop", "page", "10.96.0.2"),
]
OWN_WILDCARD = [
    entry("shop", "apis", "*.example.com"),
    raw(
        "DestinationRule",
        "networking.istio.io/v1",
        "shop",
        "apis",
        {"host": "*.example.com", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}},
    ),
    entry("data", "storage", "storage.example.com"),
]
STRANGER = entry("data", "short", "db")
"""A host that is another's short name."""


@pytest.mark.parametrize(
    "raws", [ALIAS, OWN_WILDCARD, [*ALIAS, STRANGER]], ids=["alias", "own-wildcard", "alias-and-stranger"]
)
def test_where_a_namespace_is_not_like_others(raws):
    compared(database(decoded(raws)))


def test_an_alias_keeps_its_bare_name_and_no_name_stands_twice():
    db = database(decoded([*ALIAS, STRANGER]))
    view = OutboundView("Kubernetes", "shop")
    made = [
        host
        for place in service_table(db, "Kubernetes", "shop").places
        for host in namespace_hosts(db, onlooker(db, view, place), 80, place)
    ]
    domains = [name for host in made for name in from_any(host.body).domains]
    assert len(domains) == len(set(domains)), domains
    assert "db" in domains
    alone = database(decoded(ALIAS))
    hosts = namespace_hosts(alone, onlooker(alone, view, "data"), 80, "data")
    assert "db" in [name for host in hosts for name in from_any(host.body).domains]
