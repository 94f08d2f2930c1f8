"""A mutated configuration through decoding, analysis and compilation of three views, in a database of its own."""

import traceback
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from compile.world import CLUSTER, mesh_settings, on_demand, static, validate
from fuzz.mutating import Raw, mutations
from tulle.compile.snapshot import resources_of
from tulle.compile.views import view_of
from tulle.dialects.analysis import problems_of
from tulle.dialects.inputs import objects, settings
from tulle.dialects.reading import read
from tulle.engine import Database
from tulle.model.keys import ObjectKey, WorkloadKey
from tulle.model.problems import catalogue
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource

VIEWS = (("default", "client"), ("default", "web-1"), ("istio-system", "gw"))
Resources = Mapping[TypeUrl, Mapping[str, Resource]]


class Tally(NamedTuple):
    """What became of some configurations."""

    configurations: int
    accepted: int
    refused: int
    codes: frozenset[str]
    views: int
    resources: int
    validated: int
    faults: tuple[str, ...]
    """Exceptions of ours, refusals without a code, and what Envoy said."""


def decoded(configuration: list[Raw]) -> tuple[Database, list[ObjectKey], Counter[str]]:
    """A database of what was accepted; the counter has the codes, and how many objects were accepted and refused."""
    db = Database()
    keys: list[ObjectKey] = []
    count: Counter[str] = Counter()
    with db.edit() as tx:
        tx.set(settings, mesh_settings())
        for raw in configuration:
            found = read(raw)
            for problem in found.problems:
                assert problem.code in catalogue()
                assert problem.text
                assert problem.advice
                count[problem.code] += 1
            if found.object is None:
                assert any(problem.severity == "error" for problem in found.problems), (
                    f"refused without a reason: {raw}"
                )
                count["refused"] += 1
            else:
                tx.set(objects, found.object.key, found.object)
                keys.append(found.object.key)
                count["accepted"] += 1
    return db, keys, count


def compiled(configuration: list[Raw]) -> tuple[list[Resources], Counter[str]]:
    """The resources of the views that exist; asks for every analysis too."""
    db, keys, count = decoded(configuration)
    for key in keys:
        for problem in problems_of(db, key):
            assert problem.text
            count[problem.code] += 1
    views = [view for place in VIEWS if (view := view_of(db, WorkloadKey(CLUSTER, *place)))]
    lazy = [on_demand(db, view) for view in views if view.gateway is None]
    return [*(resources_of(db, view) for view in views), *lazy], count


def run(seed: int, n: int, validate_every: int) -> Tally:
    """n configurations; every so many views are given to a real Envoy."""
    total: Counter[str] = Counter()
    faults: list[str] = []
    views = resources = validated = 0
    for number, configuration in enumerate(mutations(seed, n)):
        try:
            found, count = compiled(configuration)
        except Exception:  # noqa: BLE001 - whatever it is, it is the finding
            faults.append(f"seed {seed}, configuration {number}:\n{traceback.format_exc()}")
            continue
        total += count
        for one in found:
            views += 1
            resources += sum(map(len, one.values()))
            if validate_every and views % validate_every == 0:
                validated += 1
                said = validate(static(one))
                if said:
                    faults.append(f"seed {seed}, configuration {number}, view {views}: {said[-2000:]}")
    accepted, refused = total.pop("accepted", 0), total.pop("refused", 0)
    return Tally(n, accepted, refused, frozenset(total), views, resources, validated, tuple(faults))


def whole(tallies: list[Tally]) -> dict[str, Any]:
    """Sums, for the line that is printed."""
    return {
        "configurations": sum(tally.configurations for tally in tallies),
        "objects accepted": sum(tally.accepted for tally in tallies),
        "refused": sum(tally.refused for tally in tallies),
        "codes": len(frozenset().union(*(tally.codes for tally in tallies))),
        "views": sum(tally.views for tally in tallies),
        "resources": sum(tally.resources for tally in tallies),
        "validated by Envoy": sum(tally.validated for tally in tallies),
        "faults": sum(len(tally.faults) for tally in tallies),
    }
