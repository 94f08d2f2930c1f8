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
