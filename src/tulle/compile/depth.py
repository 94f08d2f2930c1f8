"""How deep the sidecar of a workload looks into what reaches it, and what made it look deeper than it was asked to.

A query of its own, so that clients' clusters change only when this does (docs/decisions/0009). Which filters and ALPN
follow is `compile.envoy`'s.
"""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from tulle.dialects.inputs import settings
from tulle.dialects.istio.security import authorizations_in
from tulle.dialects.kubernetes import namespace_depth, workload
from tulle.engine import Database, query
from tulle.model.intent import Depth, Endpoint
from tulle.model.keys import Labels, WorkloadKey, selects
from tulle.model.origin import Origin
from tulle.policies import KINDS


class Reach(StrEnum):
    """What a connection meets at a workload."""

    BARE = "bare"
    """No sidecar."""
    PARSES = "parses"
    """A sidecar that parses the HTTP that comes."""
    RELAYS = "relays"
    """A sidecar that relays it."""


class Raising(Struct, frozen=True):
    """A policy in force for some workloads that needs HTTP."""

    selector: Labels
    at: frozenset[Depth]
    """The depths it raises."""
    origin: Origin


class DepthRules(Struct, frozen=True):
    """What decides in one namespace."""

    default: Depth
    raising: tuple[Raising, ...]

    def raised_by(self, depth: Depth, labels: Labels) -> Origin | None:
        """The first policy that makes a workload parse although it was asked for `depth`."""
        found = (one.origin for one in self.raising if depth in one.at and selects(one.selector, labels))
        return next(found, None)

    def relays(self, own: Depth | None, labels: Labels) -> bool:
        """Whether a workload relays the HTTP that comes over mTLS."""
        depth = own or self.default
        return depth is not Depth.FULL and self.raised_by(depth, labels) is None


@query
def depth_rules(db: Database, cluster: str, namespace: str) -> DepthRules:
    """The namespace's depth or the mesh's, and the policies of it and of the root namespace that need HTTP."""
    mesh = settings(db)
    places = dict.fromkeys((mesh.root_namespace, namespace))
    raising = tuple(
        Raising(item.selector, at, item.policy.origin)
        for place in places
        for item in authorizations_in(db, cluster, place)
        if (at := _raised(item.policy))
    )
    return DepthRules(namespace_depth(db, cluster, namespace) or mesh.depth, raising)


@query
def reach(db: Database, key: WorkloadKey) -> Reach | None:
    """What a connection meets at a workload; None where it is unknown. Gateways parse what they serve."""
    found = workload(db, key)
    if found is None:
        return None
    if not found.has_sidecar:
        return Reach.BARE
    if found.is_gateway or not depth_rules(db, key.cluster, key.namespace).relays(found.depth, found.labels):
        return Reach.PARSES
    return Reach.RELAYS


def reach_of_endpoint(db: Database, endpoint: Endpoint) -> Reach:
    """The same of an endpoint that no selector chose, by what it says of itself: there may be thousands."""
    if not endpoint.has_sidecar:
        return Reach.BARE
    place = endpoint.workload
    if place is None or not depth_rules(db, place.cluster, place.namespace).relays(endpoint.depth, endpoint.labels):
        return Reach.PARSES
    return Reach.RELAYS


def _raised(policy: Any) -> frozenset[Depth]:
    """Kinds that act on requests answer in HTTP (a denial is a 403 that says why), so `once` parses for all of them.

    At `l4` bytes were asked for: only what connections cannot tell raises it.
    """
    at: set[Depth] = set()
    for kind in KINDS:
        if isinstance(policy, kind.spec):
            if kind.on_inbound_route:
                at.add(Depth.ONCE)
            if kind.needs_http and kind.needs_http(policy):
                at.add(Depth.L4)
    return frozenset(at)
