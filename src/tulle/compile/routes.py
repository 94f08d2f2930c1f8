"""Virtual hosts of sidecars: which names a port answers for, and where their requests go.

HTTP is routed by host within the port, as Istio does. A virtual host is a resource of its own, so an edit of one service's
routes touches that one alone. Gateways (neighbour: `gateways`) share the translation of rules to routes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import structs

from tulle.compile.addresses import singles
from tulle.compile.destinations import destinations_for, treatment
from tulle.compile.keyed import pushed
from tulle.compile.precedence import ordered
from tulle.compile.scope import (
    MESH,
    is_destination_routed,
    mesh_routes,
    routes_of,
    service_found,
    service_of,
    service_ports_in,
    service_table,
)
from tulle.compile.sending import send_to
from tulle.compile.views import OutboundView
from tulle.dialects.inputs import settings
from tulle.dialects.kubernetes import service, services_in
from tulle.dialects.routing import route_set
from tulle.engine import Database, gate, query
from tulle.model.intent import (
    Forward,
    HttpMatch,
    HttpRule,
    Resolution,
    Respond,
    RouteSet,
    Service,
    Target,
)
from tulle.model.keys import ServiceKey, selects
from tulle.model.plan import PASSTHROUGH, Route, RouteTable, Send, VirtualHost, WeightedTarget
from tulle.xds.names import outbound

_NOT_DECLARED = 502
"""What HTTP to undeclared hosts gets under REGISTRY_ONLY (Istio)."""
ROUTES_WITHOUT_SERVICE_PORT = 80
"""Hosts that only a VirtualService names are served at this port (Istio)."""


@query
def hosts_on(db: Database, view: OutboundView, port: int) -> tuple[str, ...]:
    """Hosts that the shared table of a port answers for."""
    table = pushed(db, view)
    found = {key.host for key, protocol in table.ports.get(port, ()) if protocol.is_http}
    return tuple(sorted(found.union(routed_only(db, view, port))))


@query
def routed_only(db: Database, view: OutboundView, port: int) -> tuple[str, ...]:
    """Hosts of a port that only route sets name."""
    if port != ROUTES_WITHOUT_SERVICE_PORT:
        return ()
    hosts = service_table(db, view.cluster, view.namespace).hosts
    routes = mesh_routes(db, view.cluster, view.namespace)
    claimed = (*routes.exact, *(wildcard for wildcard, _ in routes.wildcards))
    return tuple(sorted({host for host in claimed if host not in hosts and host != "*"}))  # `*` is the catch-all's


@query
def route_table(db: Database, view: OutboundView, port: int) -> RouteTable:
    """The shared table of an HTTP port; unknown hosts pass through, or end here under REGISTRY_ONLY."""
    return RouteTable(str(port), hosts_on(db, view, port), unknown_host(db))


@query
def virtual_host(db: Database, view: OutboundView, port: int, host: str) -> VirtualHost:
    """One host on one port. Depends on that host's service, routes and destinations only."""
    key = service_of(db, view.cluster, view.namespace, host)
    found = service(db, key) if key else None
    chosen = _route_sets(db, view, port, host)
    routes = tuple(_mesh_routes_of(db, view, port, chosen))
    origins = tuple(item.origin for item in (found, *chosen) if item)
    if not routes:  # no rule is for this port and client: as if there were none (Istio)
        routes = (_straight_to(found, port),) if found else unknown_host(db).routes
    lost = names_lost(db, view, port, host)
    names = tuple(name for name in _domains(found, host, view.namespace) if name not in lost)
    return VirtualHost(host, names, routes, origins)


@query
def names_lost(db: Database, view: OutboundView, port: int, host: str) -> frozenset[str]:
    """Names of a host that another host of the port answers for; usually none."""
    contested = contested_names(db, view, port)
    return frozenset(name for name, owner in contested.items() if owner != host)


@gate
def contested_names(db: Database, view: OutboundView, port: int) -> Mapping[str, str]:
    """Names that several hosts of a port would answer for, and who does: a host's full name first, then the first host.

    Envoy refuses a whole update in which a name stands twice; usually this is empty.
    """
    owners: dict[str, str] = {}
    contested: dict[str, str] = {}
    table = service_table(db, view.cluster, view.namespace)
    claims: list[tuple[str, tuple[str, ...]]] = [(host, (host,)) for host in routed_only(db, view, port)]
    for place in table.places:
        is_particular = place == view.namespace or aliased_in(db, view.cluster, place)
        offered = names_in(db, view.cluster, place, port, view.namespace if is_particular else "")
        claims += [(key.host, names) for key, names in offered if table.hosts.get(key.host) == key]
    hosts = {host for host, _ in claims}
    for host, names in sorted(claims):
        for name in names:
            owner = owners.setdefault(name, host)
            if owner != host:
                contested[name] = owners[name] = name if name in hosts else owner
    return contested


@query
def names_in(
    db: Database, cluster: str, place: str, port: int, client: str
) -> tuple[tuple[ServiceKey, tuple[str, ...]], ...]:
    """Names of a namespace's HTTP services on a port, for clients of another; `""` for any that has no short names there."""
    return tuple(
        (item.key, names_of(db, item.key, client))
        for item in service_ports_in(db, cluster, place)
        if any(number == port and protocol.is_http for number, protocol in item.ports)
    )


@query
def aliased_in(db: Database, cluster: str, place: str) -> tuple[ServiceKey, ...]:
    """Services of a namespace that have names of other namespaces, too (ExternalName)."""
    return tuple(item.key for item in services_in(db, cluster, place) if item.aliases)


@query
def names_of(db: Database, key: ServiceKey, namespace: str) -> tuple[str, ...]:
    """Every name of a service that a client of a namespace may use."""
    return _domains(service(db, key), key.host, namespace)


@query
def sniffed_host(db: Database, view: OutboundView, port: int, host: str) -> VirtualHost:
    """The same for a port whose protocol is sniffed: its table is the service's own, so any Host leads here."""
    return structs.replace(virtual_host(db, view, port, host), domains=("*",))


@query
def unknown_host(db: Database) -> VirtualHost:
    """The catch-all of shared tables."""
    if settings(db).registry_only:
        return _everything("block_all", Respond(_NOT_DECLARED, ""))
    return _everything("allow_any", Send((WeightedTarget(PASSTHROUGH, 1),)))


def _everything(name: str, action: Send | Respond) -> VirtualHost:
    return VirtualHost(name, ("*",), (Route(name, HttpMatch(), action, None, (), None),), ())


def rules_to_routes(
    rules: Iterable[HttpRule], accepts: Callable[[HttpMatch], bool], place: Callable[[Target], str]
) -> Iterator[Route]:
    """Routes of rules, in order, one per match; a match of everything ends the list, as nothing after it is reached."""
    for rule in rules:
        for match in rule.matches or (HttpMatch(),):
            if not accepts(match):
                continue
            kept = structs.replace(match, port=None, source_labels=(), source_namespace="", gateways=(), name="")
            action = send_to(rule.action, place) if isinstance(rule.action, Forward) else rule.action
            name = rule.name or "default"
            yield Route(name, kept, action, rule.rewrite, rule.policies, rule.origin)
            if kept == HttpMatch():
                return


def placer(db: Database, view: OutboundView, port: int) -> Callable[[Target], str]:
    """Cluster names for targets: an absent port means the service's only one, or the one the request came for.

    A subset that no destination defines means the whole service (decision 0004: apply order must not lose requests);
    analysis reports it.
    """

    def place(target: Target) -> str:
        key = service_found(db, view.cluster, view.namespace, target.host)
        number = target.port or port
        subset = target.subset
        if key is not None:
            found = service(db, key)
            if target.port is None and found and len(found.ports) == 1:
                number = found.ports[0].number
            if subset and treatment(db, destinations_for(db, view, key)).subset(subset) is None:
                subset = ""
        return outbound(number, key.host if key else target.host, subset)

    return place


@query
def is_routed(db: Database, view: OutboundView, port: int, host: str) -> bool:
    """Whether HTTP rules are in force for a client's requests to a host's port."""
    return next(_mesh_routes_of(db, view, port, _route_sets(db, view, port, host)), None) is not None


def _route_sets(db: Database, view: OutboundView, port: int, host: str) -> tuple[RouteSet, ...]:
    """The first of the host with HTTP rules, as sidecars do not merge (Istio); or all of one namespace that are by precedence."""
    found = [
        one for key in routes_of(db, view.cluster, view.namespace, host) if (one := route_set(db, key)) and one.http
    ]
    usable = [one for one in found if not one.by_precedence or is_parent(one, host, port)]
    if not usable or not usable[0].by_precedence:
        return tuple(usable[:1])
    place = usable[0].key.namespace
    return tuple(one for one in usable if one.by_precedence and one.key.namespace == place)


@query
def is_held_by_address(db: Database, view: OutboundView, key: ServiceKey, port: int) -> bool:
    """Whether routes in force for a port are for the service as a destination: any Host header leads to them.

    On-demand sidecars know every destination by its address already.
    """
    if view.is_on_demand or not is_destination_routed(db, view.cluster, view.namespace, key.host):
        return False
    return any(one.by_precedence for one in _route_sets(db, view, port, key.host))


def is_parent(found: RouteSet, host: str, port: int) -> bool:
    """Whether a route set is for a port of a service as its destination."""
    return any(one.host == host and one.port in (None, port) for one in found.parents)


def _mesh_routes_of(db: Database, view: OutboundView, port: int, found: tuple[RouteSet, ...]) -> Iterator[Route]:
    def accepts(match: HttpMatch) -> bool:
        return (
            match.port in (None, port)
            and (not match.gateways or MESH in match.gateways)
            and match.source_namespace in ("", view.namespace)
            and selects(match.source_labels, view.labels)
        )

    place = placer(db, view, port)
    if found and found[0].by_precedence:
        yield from ordered(((one, "") for one in found), place, port, "http")
    for one in found[:1]:
        yield from rules_to_routes(() if one.by_precedence else one.http, accepts, place)


def _straight_to(found: Service, port: int) -> Route:
    send = Send((WeightedTarget(outbound(port, found.key.host, ""), 1),))
    return Route("default", HttpMatch(), send, None, (), found.origin)


def _domains(found: Service | None, host: str, namespace: str) -> tuple[str, ...]:
    """Every name of a service that a client may use: Kubernetes' short forms, aliases and VIPs. Ports are ignored."""
    if found is None:
        return (host,)
    names = [host, *found.aliases]
    if found.is_kubernetes:
        names += _short_forms(host, namespace)
    names += [short for alias in found.aliases for short in _short_forms(alias, namespace)]
    if found.resolution is Resolution.HEADLESS:
        names += [f"*.{name}" for name in names]
    return tuple(dict.fromkeys((*names, *singles(found.addresses))))


def _short_forms(host: str, namespace: str) -> list[str]:
    """What Kubernetes' search domains make of a full service name; the bare name in its own namespace only."""
    short, _, rest = host.partition(".")
    place = rest.split(".", 1)[0]
    return [f"{short}.{place}", f"{short}.{place}.svc", *([short] if place == namespace else [])]
