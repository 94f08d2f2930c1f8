"""Raw objects of the goldens as databases, and a view's bytes to compare."""

import copy
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import yaml

from compile.world import CLUSTER, mesh_settings, on_demand
from golden.compile_goldens import CASES, directives, pod_of
from golden.pem import filled
from tulle.compile.snapshot import resources_of
from tulle.compile.views import view_of
from tulle.dialects.inputs import objects, settings
from tulle.dialects.reading import read
from tulle.engine import Database
from tulle.model.keys import WorkloadKey
from tulle.model.objects import MeshSettings, Object

Raw = dict[str, Any]
Bytes = Mapping[str, Mapping[str, bytes]]
"""By type, by name."""


def scene(folder: Any) -> list[Raw]:
    """A golden's objects and pods as a YAML parser gives them."""
    return copy.deepcopy(_scene(folder))


@cache
def _scene(folder: Any) -> list[Raw]:
    text = (folder / "in.yaml").read_text()
    pods = "".join(pod_of(words) for name, words in directives(text) if name == "pod")
    return [raw for raw in yaml.load_all(f"{filled(text)}\n{pods}", yaml.CSafeLoader) if raw]


def workloads(raws: Iterable[Raw]) -> list[WorkloadKey]:
    """The pods among raw objects."""
    metadata = [raw["metadata"] for raw in raws if raw["kind"] == "Pod"]
    return [WorkloadKey(CLUSTER, one["namespace"], one["name"]) for one in metadata]


def decoded(raws: Iterable[Raw]) -> list[Object]:
    """What is accepted of raw objects."""
    return [found.object for raw in raws if (found := read(raw)).object is not None]


def database(things: Iterable[Object], mesh: MeshSettings | None = None) -> Database:
    """A database of objects, set in one edit."""
    db = Database()
    with db.edit() as tx:
        tx.set(settings, mesh or mesh_settings())
        for one in things:
            tx.set(objects, one.key, one)
    return db


def put(db: Database, *things: Object) -> None:
    """Set objects in one edit."""
    with db.edit() as tx:
        for one in things:
            tx.set(objects, one.key, one)


def remove(db: Database, *things: Object) -> None:
    """Delete objects in one edit."""
    with db.edit() as tx:
        for one in things:
            tx.delete(objects, one.key)


def held(db: Database, key: WorkloadKey) -> Bytes | None:
    """Everything a workload's proxy is sent; None where there is no such workload."""
    view = view_of(db, key)
    if view is None:
        return None
    modes = {"": resources_of(db, view)}
    if view.gateway is None:
        modes["on-demand "] = on_demand(db, view)
    return {
        f"{mode}{kind.name}": {name: resource.body for name, resource in found.items()}
        for mode, resources in modes.items()
        for kind, found in resources.items()
    }


def differing(one: Bytes | None, two: Bytes | None) -> list[str]:
    """Names of what is not the same, for a readable failure."""
    if one is None or two is None:
        return [] if one is two else ["the view itself"]
    return [
        f"{kind} {name}"
        for kind in sorted({*one, *two})
        for name in sorted({*one.get(kind, {}), *two.get(kind, {})})
        if one.get(kind, {}).get(name) != two.get(kind, {}).get(name)
    ]


__all__ = [
    "CASES",
    "Bytes",
    "Raw",
    "database",
    "decoded",
    "differing",
    "held",
    "put",
    "remove",
    "scene",
    "workloads",
]
