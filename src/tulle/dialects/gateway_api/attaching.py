"""Parents of routes: which listeners a route reaches through each reference, or why none; and which services' clients it is for.

The one answer that traffic and status both rest on. Source: Gateway API, ParentReference, allowedRoutes, hostnames; GAMMA.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from tulle.dialects.gateway_api.backends import SERVICE, service_ports
from tulle.dialects.gateway_api.gateway_classes import our_gateway
from tulle.dialects.gateway_api.listeners import Listener, gateway_listeners, is_allowed, listener_sets, parent_of
from tulle.dialects.gateway_api.names import ANY_HOST, ROUTE_KINDS, host_of
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.gateway_api.schema_routes import AnyRoute, ParentRef
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey, covers
from tulle.model.objects import Object


class Attachment(Struct, frozen=True):
    """One parent reference and where it leads."""

    ref: ParentRef
    index: int
    bindings: tuple[str, ...] = ()
    """Listeners it reaches."""
    service: tuple[str, str] | None = None
    """(namespace, name) of a parent Service."""
    refused: Verdict | None = None
    """Why it reaches nothing."""


_NO_DATAGRAMS: Final = Verdict("UnsupportedValue", "datagrams are not routed: a UDPRoute has no effect")


def _parent_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str, str, str]]:
    if key.group != GROUP or key.kind not in ROUTE_KINDS:
        return
    route: AnyRoute = value.spec
    for ref in route.parent_refs:
        yield key.cluster, ref.kind, ref.namespace or key.namespace, ref.name


routes_by_parent = objects.index("routes_by_parent", _parent_buckets)
"""(cluster, kind, namespace, name) of a parent -> keys of the routes that name it."""


@query
def attachments(db: Database, key: ObjectKey) -> tuple[Attachment, ...]:
    """The references of a route to parents that are ours, in order."""
    found = objects(db, key)
    if found is None:
        return ()
    route: AnyRoute = found.spec
    hosts = tuple(host_of(name) for name in getattr(route, "hostnames", ())) or (ANY_HOST,)
    made = (_attached(db, key, hosts, index, ref) for index, ref in enumerate(route.parent_refs))
    return tuple(one for one in made if one is not None)


def _attached(db: Database, key: ObjectKey, hosts: tuple[str, ...], index: int, ref: ParentRef) -> Attachment | None:
    place = ref.namespace or key.namespace
    if (ref.group, ref.kind) == SERVICE and key.kind == "UDPRoute":
        return Attachment(ref, index, refused=_NO_DATAGRAMS)
    if (ref.group, ref.kind) == SERVICE:
        return _of_service(db, key, place, index, ref)
    if ref.group != GROUP:
        return None
    holder = ObjectKey(key.cluster, GROUP, ref.kind, place, ref.name)
    if ref.kind == "Gateway":
        listeners = [one for one in gateway_listeners(db, holder) if one.holder == holder]
        is_ours = our_gateway(db, holder) is not None
    elif ref.kind == "ListenerSet":
        parent = parent_of(db, holder)
        is_ours = parent is not None and our_gateway(db, parent) is not None
        is_in = parent is not None and holder in listener_sets(db, parent)
        listeners = [one for one in gateway_listeners(db, parent) if one.holder == holder] if is_in and parent else []
    else:
        return None
    if not is_ours:
        return None
    if key.kind == "UDPRoute":
        return Attachment(ref, index, refused=_NO_DATAGRAMS)
    reached, refused = _reached(db, key, hosts, ref, listeners)
    return Attachment(ref, index, tuple(one.binding for one in reached), refused=refused)


def _reached(
    db: Database, key: ObjectKey, hosts: tuple[str, ...], ref: ParentRef, listeners: list[Listener]
) -> tuple[list[Listener], Verdict | None]:
    named = [
        one
        for one in listeners
        if ref.section_name in (None, "", one.written.name) and ref.port in (None, one.written.port)
    ]
    usable = [one for one in named if one.refused is None]
    if not usable:
        return [], Verdict("NoMatchingParent", "no listener has that name and port")
    letting = [
        one
        for one in usable
        if key.kind in one.kinds and is_allowed(db, one.written.allowed_routes.namespaces, one.holder.namespace, key)
    ]
    if not letting:
        return [], Verdict("NotAllowedByListeners", f"no listener lets a {key.kind} of {key.namespace} attach")
    if key.kind == "TCPRoute":
        return letting, None
    meeting = [one for one in letting if any(meet(one.host, host) for host in hosts)]
    if not meeting:
        return [], Verdict("NoMatchingListenerHostname", "no hostname of the route is one of a listener")
    return meeting, None


def _of_service(db: Database, key: ObjectKey, place: str, index: int, ref: ParentRef) -> Attachment:
    ports = service_ports(db, key.cluster, place, ref.name)
    if ports is None:
        return Attachment(ref, index, refused=Verdict("NoMatchingParent", f"there is no Service {place}/{ref.name}"))
    if ref.port is not None and ref.port not in dict(ports):
        refused = Verdict("NoMatchingParent", f"Service {place}/{ref.name} has no port {ref.port}")
        return Attachment(ref, index, refused=refused)
    return Attachment(ref, index, service=(place, ref.name))


def meet(one: str, other: str) -> bool:
    """Whether some host is of both."""
    return covers(one, other) or covers(other, one)


@query
def attached_routes(db: Database, key: ObjectKey) -> dict[str, int]:
    """How many routes reach each listener of a Gateway or ListenerSet, by binding."""
    counted: dict[str, int] = {}
    for route in routes_by_parent(db, (key.cluster, key.kind, key.namespace, key.name)):
        reached = {
            binding
            for one in attachments(db, route)
            if (one.ref.kind, one.ref.namespace or route.namespace, one.ref.name) == (key.kind, key.namespace, key.name)
            for binding in one.bindings
        }
        for binding in reached:
            counted[binding] = counted.get(binding, 0) + 1
    return counted
