"""Views: what configuration depends on. A proxy has a view; generation sees views only, so equal views get equal bytes.

Neighbours: `scope` says what a view can see, `snapshot` collects a view's resources. A proxy's name and address enter
through its bootstrap alone.
"""

from typing import Any

from msgspec import Struct, structs

from tulle.compile.depth import depth_rules
from tulle.compile.inbound import inbound_of, policies_on
from tulle.compile.scope import label_keys_in_use
from tulle.dialects.inputs import settings
from tulle.dialects.kubernetes import services_in, workload
from tulle.dialects.kubernetes.discovery import FULL, ON_DEMAND, said_of
from tulle.dialects.kubernetes.pods import is_leaving, pod_key
from tulle.dialects.routing import gateways
from tulle.engine import Database, query
from tulle.model.intent import Depth, Workload
from tulle.model.keys import Labels, WorkloadKey, selects
from tulle.model.plan import Inbound


class OutboundView(Struct, frozen=True, order=True):
    """A client's place: what it can see, and which client-selective rules it meets."""

    cluster: str
    namespace: str
    labels: Labels = ()
    """Only labels that some rule asks clients about."""
    is_gateway: bool = False
    """Nothing is captured there: the client chose no address."""
    is_on_demand: bool = False
    """It holds what its workload calls (decision 0008); which that is, is not part of the view."""
    relays: bool = False
    """HTTP that nothing asks anything of passes as bytes (depth l4)."""
    client_certificate: str = ""
    """The secret that a gateway shows to backends whose policy demands TLS; empty: none."""


class GatewayView(Struct, frozen=True, order=True):
    """A gateway's place: the Gateways that select it."""

    cluster: str
    namespace: str
    labels: Labels
    """Only labels that some Gateway's selector asks about."""
    ports: tuple[tuple[int, int], ...]
    """(service port, workload port) of the Services in front of it."""
    policies: tuple[Any, ...] = ()
    """Authorizations in force at its ports."""


class View(Struct, frozen=True):
    """A sidecar is outbound x inbound; a gateway is outbound x gateway."""

    outbound: OutboundView
    inbound: Inbound | None = None
    gateway: GatewayView | None = None
    is_leaving: bool = False
    """A gateway that was told to end: its callers shall go elsewhere. (A sidecar's callers hear it by their endpoints.)"""


@query
def view_of(db: Database, key: WorkloadKey) -> View | None:
    """The view of a workload; None where it is unknown. Once per workload and change of it."""
    found = workload(db, key)
    if found is None:
        return None
    labels = _kept(found.labels, label_keys_in_use(db, key.cluster))
    if found.is_gateway:
        view = _gateway_view(db, found)
        shown = client_certificate(db, view.cluster, view.namespace, view.labels)
        outbound = OutboundView(key.cluster, key.namespace, labels, is_gateway=True, client_certificate=shown)
        return View(outbound, gateway=view, is_leaving=is_leaving(db, pod_key(key)))
    depth = found.depth or depth_rules(db, key.cluster, key.namespace).default
    # What is asked for by address is told apart as HTTP: who relays asks for nothing, unless somebody wants just that.
    asks = (said_of(db, key) or (FULL if depth is Depth.L4 else settings(db).discovery)) == ON_DEMAND
    relays = depth is Depth.L4 and not asks
    outbound = OutboundView(key.cluster, key.namespace, labels, is_on_demand=asks, relays=relays)
    return View(outbound, inbound=inbound_of(db, key))


@query
def whole_view_of(db: Database, key: WorkloadKey) -> View | None:
    """As `view_of`, of a client that cannot ask for names: it is given everything."""
    found = view_of(db, key)
    return given_everything(found) if found else None


def given_everything(view: View) -> View:
    """The view without asking: all that an on-demand one may ask for."""
    return structs.replace(view, outbound=structs.replace(view.outbound, is_on_demand=False))


@query
def client_certificate(db: Database, cluster: str, namespace: str, labels: Labels) -> str:
    """The secret resource that a gateway workload shows to backends: of the oldest of its Gateways that has one."""
    found = [
        one
        for one in gateways(db, cluster)
        if one.client_certificate
        and selects(one.selector, labels)
        and (not one.is_local or one.key.namespace == namespace)
    ]
    oldest = min(found, key=lambda one: (one.created, one.key), default=None)
    return secret_resource(*oldest.client_certificate) if oldest and oldest.client_certificate else ""


def secret_resource(namespace: str, name: str) -> str:
    """The name by which proxies ask for a Secret."""
    return f"kubernetes://{namespace}/{name}"


@query
def selector_keys(db: Database, cluster: str) -> frozenset[str]:
    """Label keys that the Gateways' selectors ask about."""
    return frozenset(name for gateway in gateways(db, cluster) for name, _ in gateway.selector)


@query
def gateway_ports(db: Database, key: WorkloadKey) -> tuple[tuple[int, int], ...]:
    """(service port, workload port) pairs of the Services that select a gateway workload."""
    found = workload(db, key)
    if found is None:
        return ()
    named = {port.name: port.number for port in found.ports}
    pairs = set()
    for item in services_in(db, key.cluster, key.namespace):
        if item.selector and selects(item.selector, found.labels):
            for port in item.ports:
                target = port.target if isinstance(port.target, int) else named.get(port.target)
                if target is not None:
                    pairs.add((port.number, target))
    return tuple(sorted(pairs))


def _gateway_view(db: Database, found: Workload) -> GatewayView:
    key = found.key
    labels = _kept(found.labels, selector_keys(db, key.cluster))
    policies = policies_on(db, key.cluster, key.namespace, found.labels)
    return GatewayView(key.cluster, key.namespace, labels, gateway_ports(db, key), policies)


def _kept(labels: Labels, keys: frozenset[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in keys)
