"""What an on-demand sidecar holds: what everybody is pushed, and what stands behind the names it knows.

    resources_on_demand(db, view, names)        names are serving's: what the workload's identity is known to call

A name is an address and port (`keyed`). An HTTP name is a virtual host of the table `vip`, with every cluster its routes lead to;
a name for bytes is one cluster. What is asked for and is nothing, or is gone, gets what unknown destinations get, under the same
name, so that it can become something later. Decision 0008.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.message import Message
from msgspec import Struct, structs

from tulle.compile import outbound, routes
from tulle.compile.destinations import clusters_of, destinations_for
from tulle.compile.endpoints import load_assignment
from tulle.compile.envoy import clusters as envoy_clusters
from tulle.compile.envoy import inbound as envoy_inbound
from tulle.compile.envoy import listeners as envoy_listeners
from tulle.compile.envoy import routes as envoy_routes
from tulle.compile.envoy.on_demand import AGAIN, unmarked
from tulle.compile.keyed import TABLE, Asked, owner_of, parse, pushed_table
from tulle.compile.onlookers import onlooker
from tulle.compile.routes import unknown_host
from tulle.compile.scope import NOBODY, service_seen
from tulle.compile.snapshot import ByName, Resources, resources_of
from tulle.compile.views import OutboundView, View
from tulle.dialects.inputs import settings
from tulle.engine import Database, query
from tulle.model.intent import PortProtocol, Target
from tulle.model.keys import ObjectKey, ServiceKey
from tulle.model.plan import Cluster, Inbound, Listener, RouteTable, Send, TcpChain, Upstream, VirtualHost
from tulle.xds.names import TypeUrl, parse_cluster, virtual_host
from tulle.xds.names import outbound as cluster_name
from tulle.xds.resource import Resource

Names = frozenset[str]

WAITING = "_"


class Piece(Struct, frozen=True):
    """A virtual host and the clusters its routes lead to."""

    host: Resource
    clusters: tuple[str, ...]


@query
def resources_held(db: Database, view: View, names: Names) -> Mapping[TypeUrl, ByName]:
    """All resources of a view; `names` count for on-demand views only."""
    return resources_on_demand(db, view, names) if view.outbound.is_on_demand else resources_of(db, view)


@query
def resources_on_demand(db: Database, view: View, names: Names) -> Mapping[TypeUrl, ByName]:
    """All resources of an on-demand view that knows `names`. Types that do not depend on names are shared by all of them."""
    return {
        TypeUrl.CDS: _clusters(db, view, names),
        TypeUrl.EDS: _assignments(db, view.outbound, names),
        TypeUrl.LDS: _listeners(db, view),
        TypeUrl.RDS: _tables(db, view),
        TypeUrl.VHDS: _hosts(db, view.outbound, names),
    }


def is_known(db: Database, view: OutboundView, name: str) -> bool:
    """Whether a name stands for a service the view sees."""
    asked = parse(name)
    return asked is not None and owner_of(db, view, asked.address, asked.port) is not None


# --- what the names stand for ----------------------------------------------------------------------------------------


@query
def asked_host(db: Database, view: OutboundView, name: str) -> VirtualHost:
    """The virtual host of an address and port: the routes of the service's host, whatever `:authority` says otherwise."""
    asked = _parsed(name)
    owner = owner_of(db, view, asked.address, asked.port)
    if owner is None:
        return structs.replace(unknown_host(db), domains=(name,))
    return structs.replace(routes.virtual_host(db, view, asked.port, owner[0].host), domains=(name,))


@query
def asked_cluster(db: Database, view: OutboundView, name: str) -> Cluster | None:
    """The cluster that carries bytes to an address and port; None where nothing is known to be there."""
    asked = _parsed(name)
    owner = owner_of(db, view, asked.address, asked.port)
    if owner is None:
        return None
    key, _ = owner
    whole = cluster_name(asked.port, key.host)
    found = clusters_of(db, key, destinations_for(db, view, key), False)
    return next((structs.replace(plan, name=name, upstream=Upstream.TCP) for plan in found if plan.name == whole), None)


@query
def asked_table(db: Database) -> RouteTable:
    """The table of everything that is asked for."""
    del db
    return RouteTable(TABLE, (), None, is_by_address=True)


@query
def _asked_piece(db: Database, view: OutboundView, name: str) -> Piece:
    asked = _parsed(name)
    return _host_piece(db, view, asked_host(db, view, name), asked.port, name)


@query
def _asked_streams(db: Database, view: OutboundView, name: str) -> Resource:
    plan = asked_cluster(db, view, name)
    mesh = settings(db)
    if plan is not None:
        made = envoy_clusters.cluster(plan, mesh)
        if plan.service is not None:
            made.alt_stat_name = cluster_name(_parsed(name).port, plan.service.host)
        return _resource(made)
    unknown = envoy_clusters.black_hole() if mesh.registry_only else envoy_clusters.passthrough()
    unknown.name = name
    return _resource(unknown)


def _parsed(name: str) -> Asked:
    asked = parse(name)
    if asked is None:
        raise ValueError(f"{name} is no name of an on-demand sidecar")
    return asked


# --- what everybody is pushed ----------------------------------------------------------------------------------------


def _listener_plans(db: Database, view: OutboundView) -> Iterator[Listener]:
    for port in outbound.shared_ports(db, view):
        yield outbound.shared_listener(db, view, port)
    for key in _pushed_services(db, view):
        yield from outbound.service_listeners(db, view, key)


@query
def _listeners(db: Database, view: View) -> ByName:
    mesh, client = settings(db), view.outbound
    made = [_resource(envoy_listeners.asking_capture(outbound.asking(db, client), mesh)), _asked_again(db)]
    made += [_resource(envoy_listeners.listener(plan, mesh)) for plan in _listener_plans(db, client)]
    if view.inbound:
        made.append(_resource(envoy_inbound.listener(view.inbound, mesh)))
    return _by_name(made)


@query
def _tables(db: Database, view: View) -> ByName:
    client, mesh = view.outbound, settings(db)
    plans = [asked_table(db)]
    plans += [routes.route_table(db, client, port) for port in outbound.http_ports(db, client)]
    plans += [outbound.sniffed_table(key.host, port) for key, port in _pushed_sniffed(db, client)]
    made = [envoy_routes.table(plan, mesh) for plan in plans]
    return _by_name(map(_resource, [*made, *(envoy_inbound.tables(view.inbound) if view.inbound else ())]))


@query
def _pushed_pieces(db: Database, view: OutboundView) -> tuple[Piece, ...]:
    made = []
    for port in outbound.http_ports(db, view):
        for host in routes.hosts_on(db, view, port):
            plan = routes.virtual_host(db, view, port, host)
            made.append(_host_piece(db, view, plan, port, virtual_host(str(port), host)))
    for key, port in _pushed_sniffed(db, view):
        plan = routes.sniffed_host(db, view, port, key.host)
        name = virtual_host(outbound.table_of(key.host, port), key.host)
        made.append(_host_piece(db, view, plan, port, name))
    return tuple(made)


@query
def _pushed_clusters(db: Database, view: OutboundView) -> tuple[str, ...]:
    """Clusters that listeners and pushed virtual hosts lead to."""
    found: dict[str, None] = {}
    for plan in _listener_plans(db, view):
        streams = (chain for chain in plan.chains if isinstance(chain, TcpChain))
        found.update((target.cluster, None) for chain in streams for target in chain.targets)
    for piece in _pushed_pieces(db, view):
        found.update(dict.fromkeys(piece.clusters))
    return tuple(found)


def _pushed_services(db: Database, view: OutboundView) -> Iterator[ServiceKey]:
    for keys in pushed_table(db, view.cluster, view.namespace).places.values():
        yield from keys


def _pushed_sniffed(db: Database, view: OutboundView) -> list[tuple[ServiceKey, int]]:
    ports = pushed_table(db, view.cluster, view.namespace).ports
    return sorted(
        (key, port) for port, found in ports.items() for key, protocol in found if protocol is PortProtocol.AUTO
    )


# --- together --------------------------------------------------------------------------------------------------------


@query
def _hosts(db: Database, view: OutboundView, names: Names) -> ByName:
    tables = [TABLE, *map(str, outbound.http_ports(db, view))]
    tables += [outbound.table_of(key.host, port) for key, port in _pushed_sniffed(db, view)]
    waiting = (envoy_routes.waiting_host(table, virtual_host(table, WAITING)) for table in tables)
    pieces = [*_pushed_pieces(db, view), *_known_pieces(db, view, names)]
    return _by_name([*map(_resource, waiting), *(piece.host for piece in pieces)])


@query
def _clusters(db: Database, view: View, names: Names) -> ByName:
    made = list(_fixed_clusters(db))
    made += [found for found, _ in _destinations(db, view.outbound, names)]
    made += [_asked_streams(db, _eyes(db, view.outbound, name), name) for name in _streams(names)]
    made += [_door(db, name) for name in _requests(names)]
    if view.inbound:
        made += _local_clusters(db, view.inbound)
    return _by_name(made)


@query
def _assignments(db: Database, view: OutboundView, names: Names) -> ByName:
    plans = [plan for _, plan in _destinations(db, view, names)]
    plans += [plan for name in _streams(names) if (plan := asked_cluster(db, _eyes(db, view, name), name))]
    return _by_name(load_assignment(db, plan.name, *plan.source) for plan in plans if plan.source)


def _known_pieces(db: Database, view: OutboundView, names: Names) -> list[Piece]:
    return [_asked_piece(db, _eyes(db, view, name), name) for name in _requests(names)]


def _eyes(db: Database, view: OutboundView, name: str) -> OutboundView:
    """Whose view of a name's service this one shares; what stands for nothing is nothing to anybody."""
    asked = _parsed(name)
    owner = owner_of(db, view, asked.address, asked.port)
    return onlooker(db, view, owner[0].namespace if owner else NOBODY)


def _streams(names: Names) -> list[str]:
    return sorted(name for name in names if not _is_of_requests(name))


def _requests(names: Names) -> list[str]:
    return sorted(filter(_is_of_requests, names))


def _is_of_requests(name: str) -> bool:
    return name.startswith(f"{TABLE}/")


@query
def _destinations(db: Database, view: OutboundView, names: Names) -> tuple[tuple[Resource, Cluster], ...]:
    """Every cluster of a service that something leads to, once."""
    made: list[tuple[Resource, Cluster]] = []
    found = dict.fromkeys(_pushed_clusters(db, view))
    for piece in _known_pieces(db, view, names):
        found.update(dict.fromkeys(piece.clusters))
    for name in found:
        parts = parse_cluster(name)
        key = service_seen(db, view.cluster, view.namespace, parts.host) if parts else None
        if key is not None:
            made += _named_cluster(db, key, destinations_for(db, view, key), name)
    return tuple(made)


@query
def _named_cluster(
    db: Database, key: ServiceKey, destinations: tuple[ObjectKey, ...], name: str
) -> tuple[tuple[Resource, Cluster], ...]:
    """One cluster of a service, shared by all clients with equal destinations; nothing where there is none of the name."""
    mesh = settings(db)
    return tuple(
        (_resource(envoy_clusters.cluster(plan, mesh)), plan)
        for plan in clusters_of(db, key, destinations, False)
        if plan.name == name
    )


@query
def _fixed_clusters(db: Database) -> Resources:
    del db
    return (_resource(envoy_clusters.passthrough()), _resource(envoy_clusters.black_hole()))


@query
def _asked_again(db: Database) -> Resource:
    """The listener behind all doors, the same for everybody."""
    return _resource(envoy_listeners.asked_again(settings(db)))


@query
def _door(db: Database, name: str) -> Resource:
    """What requests to an address and port wait for that nobody has asked for before."""
    del db
    return Resource.of(envoy_clusters.door(name, AGAIN), name, is_door=True)


@query
def _local_clusters(db: Database, plan: Inbound) -> Resources:
    del db
    return tuple(map(_resource, envoy_inbound.local_clusters(plan)))


def _host_piece(db: Database, view: OutboundView, plan: VirtualHost, port: int, name: str) -> Piece:
    led_to: dict[str, None] = {}
    for route in plan.routes:
        if isinstance(route.action, Send):
            led_to.update((target.cluster, None) for target in route.action.targets)
    place = _noting(routes.placer(db, view, port), led_to)
    made = envoy_routes.virtual_host(plan, settings(db), place, name)
    if _is_of_requests(name):
        unmarked(made)
    return Piece(_resource(made), tuple(led_to))


def _noting(place: Callable[[Target], str], led_to: dict[str, None]) -> Callable[[Target], str]:
    """The same, and what it named is noted: policies have targets too (mirrors)."""

    def noted(target: Target) -> str:
        found = place(target)
        led_to[found] = None
        return found

    return noted


def _resource(message: Message) -> Resource:
    return Resource.of(message, message.name)  # type: ignore[attr-defined]


def _by_name(made: Iterable[Resource]) -> ByName:
    """One mapping; where two claim a name the first has it."""
    found: dict[str, Resource] = {}
    for resource in made:
        found.setdefault(resource.name, resource)
    return found


__all__ = ["Names", "asked_cluster", "asked_host", "asked_table", "is_known", "resources_held", "resources_on_demand"]
