"""The objects of the cluster benchmark are ones that tulle takes without a word, and the shape is what it says."""

from typing import Any

import pytest

from bench import kubernetes_world as world
from tulle.dialects.reading import read

SHAPE = world.Shape(services=120, pods_each=5)
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "Service": ("v1", world.service(7)),
    "Pod": ("v1", world.pod(7, 1, 5)),
    "EndpointSlice": ("discovery.k8s.io/v1", world.endpoints(7, 5)),
    "VirtualService": ("networking.istio.io/v1", world.route(7)),
    "DestinationRule": ("networking.istio.io/v1", world.rule(7)),
}


@pytest.mark.parametrize("kind", MADE)
def test_an_object_is_read_without_a_problem(kind: str) -> None:
    version, document = MADE[kind]
    decoded = read({"apiVersion": version, "kind": kind, **document})
    assert decoded.problems == ()
    assert decoded.object is not None


def test_slices_name_the_pods_by_their_addresses() -> None:
    addresses = set()
    for number in range(SHAPE.services):
        pods = [world.pod(number, index, 5) for index in range(5)]
        found = world.endpoints(number, 5)["endpoints"]
        assert [one["addresses"] for one in found] == [[one["status"]["podIP"]] for one in pods]
        assert [one["targetRef"]["name"] for one in found] == [one["metadata"]["name"] for one in pods]
        addresses |= {one["status"]["podIP"] for one in pods}
    assert len(addresses) == SHAPE.services * 5


def test_namespaces_are_ours_and_enough() -> None:
    places = {world.namespace_of(number) for number in range(SHAPE.services)}
    assert places == {f"{world.PREFIX}-{number}" for number in range(SHAPE.namespaces)}
