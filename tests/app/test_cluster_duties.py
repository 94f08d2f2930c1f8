"""What the leader wishes, and when it says so again."""

import json
from typing import Any

from tulle.app.cluster.duties import TrustRoots
from tulle.installing.naming import TRUST_ROOT
from tulle.kube.resources import CONFIG_MAPS


class Wishes:
    """The writer's two doors."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.forgotten: list[str] = []

    def apply(self, resource: object, document: dict[str, Any]) -> None:
        assert resource is CONFIG_MAPS
        assert document["metadata"]["name"] == TRUST_ROOT
        roots = document["data"]["root-cert.pem"]
        [resource] = json.loads(document["data"]["sds.json"])["resources"]
        assert resource["validation_context"] == {"trusted_ca": {"inline_string": roots}}, "Envoy's copy is the same"
        self.applied.append(f"{document['metadata']['namespace']} {roots}")

    def forget(self, _: object, namespace: str, name: str) -> None:
        assert name == TRUST_ROOT
        self.forgotten.append(namespace)

    def taken(self) -> tuple[list[str], list[str]]:
        found = self.applied, self.forgotten
        self.applied, self.forgotten = [], []
        return found


def test_roots_are_said_when_something_changed():
    wishes = Wishes()
    roots = TrustRoots(wishes)  # type: ignore[arg-type]
    roots.settle({"a": "1", "kube-system": "2"}, b"one", 1000.0)
    assert wishes.taken() == (["a one"], [])
    roots.settle({"a": "1", "kube-system": "2"}, b"one", 1001.0)
    assert wishes.taken() == ([], [])
    roots.settle({"a": "1", "b": "3"}, b"one", 1002.0)
    assert wishes.taken() == (["a one", "b one"], ["kube-system"])
    roots.settle({"a": "1", "b": "3"}, b"two", 1003.0)
    assert wishes.taken() == (["a two", "b two"], [])


def test_a_namespace_that_was_made_again_has_nothing():
    wishes = Wishes()
    roots = TrustRoots(wishes)  # type: ignore[arg-type]
    roots.settle({"a": "1"}, b"one", 1000.0)
    wishes.taken()
    roots.settle({"a": "2"}, b"one", 1001.0)
    assert wishes.taken() == (["a one"], ["a"])


def test_what_somebody_deleted_comes_back():
    wishes = Wishes()
    roots = TrustRoots(wishes)  # type: ignore[arg-type]
    roots.settle({"a": "1"}, b"one", 1000.0)
    wishes.taken()
    roots.settle({"a": "1"}, b"one", 1700.0)
    assert wishes.taken() == (["a one"], ["a"])
