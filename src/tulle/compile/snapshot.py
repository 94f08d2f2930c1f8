"""Everything a view holds, as content-addressed resources by type: what serving sends and `explain` reads.

Resources are made per service and port and collected per namespace, so an edit rebuilds what it changed and re-lists one
bundle. Secrets are not here: serving joins them for the identity of each proxy.
"""

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import Message
from msgspec.structs import replace

from tulle.compile import gateways, outbound, routes
from tulle.compile.destinations import clusters_of, destinations_for, presenting
from tulle.compile.endpoints import load_assignment
from tulle.compile.envoy import clusters as envoy_clusters
from tulle.compile.envoy import inbound as envoy_inbound
from tulle.compile.envoy import listeners as envoy_listeners
from tulle.compile.envoy import routes as envoy_routes
from tulle.compile.onlookers import onlooker
from tulle.compile.scope import destinations_routed, service_ports_in, service_table, services_seen
from tulle.compile.views import GatewayView, OutboundView, View
from tulle.dialects.inputs import settings
from tulle.engine import Database, query
from tulle.model.intent import PortProtocol
from tulle.model.keys import ObjectKey, ServiceKey
from tulle.model.plan import Inbound, RouteTable
from tulle.xds.names import TypeUrl, virtual_host
from tulle.xds.resource import Resource

Resources = tuple[Resource, ...]
ByName = Mapping[str, Resource]

WAITING = "_"
"""The virtual host that ends the warming of every table, after its slash."""


@query
def resources_of(db: Database, view: View) -> Mapping[TypeUrl, ByName]:
    """All resources of a view. Each type's mapping is the same object as before where nothing of it changed."""
    return {
        TypeUrl.CDS: clusters_held(db, view),
        TypeUrl.EDS: assignments_held(db, view.outbound),
        TypeUrl.LDS: listeners_held(db, view),
        TypeUrl.RDS: tables_held(db, view),
        TypeUrl.VHDS: hosts_held(db, view),
    }


@query
def clusters_held(db: Database, view: View) -> ByName:
    """Clusters: of every visible service, of the workload's own ports, and the fixed ones."""
    made = [_fixed_clusters(db)]
    made += [namespace_clusters(db, eyes, place) for eyes, place in _seen(db, view.outbound)]
    if view.inbound:
        made.append(local_clusters(db, view.inbound))
    return _by_name(made)


@query
def assignments_held(db: Database, view: OutboundView) -> ByName:
    """Endpoints of every cluster that has them sent."""
    return _by_name(namespace_assignments(db, eyes, place) for eyes, place in _seen(db, view))


@query
def listeners_held(db: Database, view: View) -> ByName:
    """Listeners: of a sidecar or of a gateway."""
    if view.gateway:
        return _by_name([_gateway_listeners(db, view.gateway, view.outbound, view.is_leaving)])
    made = [_shared_listeners(db, view.outbound)]
    made += [namespace_listeners(db, eyes, place) for eyes, place in _seen(db, view.outbound)]
    if view.inbound:
        made.append(_inbound_listener(db, view.inbound))
    return _by_name(made)


@query
def tables_held(db: Database, view: View) -> ByName:
    """Route configurations, without their virtual hosts."""
    if view.gateway:
        names = [name for name, _ in gateways.gateway_tables(db, view.gateway)]
        return _by_name([tuple(_table(db, gateways.gateway_table(db, view.gateway, name)) for name in names)])
    made = [
        tuple(
            _table(db, routes.route_table(db, view.outbound, port)) for port in outbound.http_ports(db, view.outbound)
        )
    ]
    made.append(
        tuple(_table(db, outbound.sniffed_table(key.host, port)) for key, port in sniffed_ports(db, view.outbound))
    )
    if view.inbound:
        made.append(_inbound_tables(db, view.inbound))
    return _by_name(made)


@query
def hosts_held(db: Database, view: View) -> ByName:
    """Virtual hosts of every table, and one that ends each table's warming."""
    made: list[Resources] = []
    if view.gateway:
        for name, _ in gateways.gateway_tables(db, view.gateway):
            hosts = gateways.gateway_hosts(db, view.gateway, name)
            made.append((_waiting(name),))
            made.append(tuple(_gateway_host(db, view.gateway, view.outbound, name, host) for host in hosts))
        return _by_name(made)
    for port in outbound.http_ports(db, view.outbound):
        made.append((_waiting(str(port)),))
        made += [namespace_hosts(db, eyes, port, place) for eyes, place in _seen(db, view.outbound)]
        made.append(other_hosts(db, view.outbound, port))
    for key, port in sniffed_ports(db, view.outbound):
        table = outbound.table_of(key.host, port)
        made.append((_waiting(table), _sniffed_host(db, view.outbound, port, key.host)))
    return _by_name(made)


@query
def service_clusters(
    db: Database, key: ServiceKey, destinations: tuple[ObjectKey, ...], at_gateway: bool, certificate: str
) -> Resources:
    """The clusters of one service; `certificate` is the secret that a gateway shows to backends, if any."""
    mesh = settings(db)
    plans = clusters_of(db, key, destinations, at_gateway)
    return tuple(_resource(envoy_clusters.cluster(presenting(plan, certificate), mesh)) for plan in plans)


@query
def service_assignments(
    db: Database, key: ServiceKey, destinations: tuple[ObjectKey, ...], at_gateway: bool
) -> Resources:
    """The endpoints of one service's clusters."""
    plans = clusters_of(db, key, destinations, at_gateway)
    return tuple(load_assignment(db, plan.name, *plan.source) for plan in plans if plan.source)


@query
def namespace_clusters(db: Database, view: OutboundView, place: str) -> Resources:
    """Clusters of one namespace's services: a bundle, so that lists stay short."""
    return tuple(
        made
        for key in services_seen(db, view.cluster, view.namespace, place)
        for made in service_clusters(db, key, destinations_for(db, view, key), view.is_gateway, view.client_certificate)
    )


@query
def namespace_assignments(db: Database, view: OutboundView, place: str) -> Resources:
    """Endpoints of one namespace's services."""
    return tuple(
        made
        for key in services_seen(db, view.cluster, view.namespace, place)
        for made in service_assignments(db, key, destinations_for(db, view, key), view.is_gateway)
    )


@query
def namespace_listeners(db: Database, view: OutboundView, place: str) -> Resources:
    """Listeners of one namespace's service addresses."""
    return tuple(
        made
        for key in services_seen(db, view.cluster, view.namespace, place)
        for made in _service_listeners(db, view, key)
    )


@query
def sniffed_ports(db: Database, view: OutboundView) -> tuple[tuple[ServiceKey, int], ...]:
    """Service ports with a table of their own: the protocol is found out per connection, or routes are by destination."""
    table = service_table(db, view.cluster, view.namespace)
    routed = destinations_routed(db, view.cluster, view.namespace)
    return tuple(
        sorted(
            (key, port)
            for port, found in table.ports.items()
            for key, protocol in found
            if protocol is PortProtocol.AUTO
            or (protocol.is_http and key.host in routed and routes.is_held_by_address(db, view, key, port))
        )
    )


@query
def namespace_hosts(db: Database, view: OutboundView, port: int, place: str) -> Resources:
    """Virtual hosts of one namespace's services in a shared table."""
    seen = frozenset(services_seen(db, view.cluster, view.namespace, place))
    return tuple(
        host_resource(db, view, port, item.key.host)
        for item in service_ports_in(db, view.cluster, place)
        if item.key in seen and any(number == port and protocol.is_http for number, protocol in item.ports)
    )


@query
def other_hosts(db: Database, view: OutboundView, port: int) -> Resources:
    """Virtual hosts of names that only routes declare."""
    return tuple(host_resource(db, view, port, host) for host in routes.routed_only(db, view, port))


@query
def host_resource(db: Database, view: OutboundView, port: int, host: str) -> Resource:
    """One virtual host as a resource: all that an edit of its routes rebuilds."""
    plan = routes.virtual_host(db, view, port, host)
    name = virtual_host(str(port), host)
    place = routes.placer(db, view, port)
    return _resource(envoy_routes.virtual_host(plan, settings(db), place, name))


@query
def local_clusters(db: Database, plan: Inbound) -> Resources:
    """Clusters of the workload's own ports."""
    del db
    return tuple(_resource(message) for message in envoy_inbound.local_clusters(plan))


@query
def _fixed_clusters(db: Database) -> Resources:
    del db
    return (_resource(envoy_clusters.passthrough()), _resource(envoy_clusters.black_hole()))


@query
def _inbound_listener(db: Database, plan: Inbound) -> Resources:
    return (_resource(envoy_inbound.listener(plan, settings(db))),)


@query
def _inbound_tables(db: Database, plan: Inbound) -> Resources:
    del db
    return tuple(_resource(message) for message in envoy_inbound.tables(plan))


@query
def _shared_listeners(db: Database, view: OutboundView) -> Resources:
    mesh = settings(db)
    shared = (_shared_listener(db, view, port) for port in outbound.shared_ports(db, view))
    return (_resource(envoy_listeners.capture(mesh)), *shared)


@query
def _shared_listener(db: Database, view: OutboundView, port: int) -> Resource:
    return _resource(envoy_listeners.listener(outbound.shared_listener(db, view, port), settings(db)))


@query
def _service_listeners(db: Database, view: OutboundView, key: ServiceKey) -> Resources:
    mesh = settings(db)
    return tuple(_resource(envoy_listeners.listener(plan, mesh)) for plan in outbound.service_listeners(db, view, key))


@query
def _gateway_listeners(db: Database, view: GatewayView, client: OutboundView, is_leaving: bool) -> Resources:
    mesh = settings(db)
    plans = (gateways.gateway_listener(db, view, client, port) for port in gateways.gateway_ports_used(db, view))
    told = (replace(plan, is_leaving=is_leaving) for plan in plans if plan)
    return tuple(_resource(envoy_listeners.listener(plan, mesh)) for plan in told)


@query
def _gateway_host(db: Database, view: GatewayView, client: OutboundView, table: str, host: str) -> Resource:
    plan = gateways.gateway_host(db, view, client, table, host)
    place = routes.placer(db, client, gateways.port_of_table(db, view, table))
    return _resource(envoy_routes.virtual_host(plan, settings(db), place, virtual_host(table, host)))


@query
def _sniffed_host(db: Database, view: OutboundView, port: int, host: str) -> Resource:
    plan = routes.sniffed_host(db, view, port, host)
    name = virtual_host(outbound.table_of(host, port), host)
    return _resource(envoy_routes.virtual_host(plan, settings(db), routes.placer(db, view, port), name))


@query
def _table(db: Database, plan: RouteTable) -> Resource:
    return _resource(envoy_routes.table(plan, settings(db)))


def _waiting(table: str) -> Resource:
    name = virtual_host(table, WAITING)
    return _resource(envoy_routes.waiting_host(table, name))


def _places(db: Database, view: OutboundView) -> Iterator[str]:
    yield from service_table(db, view.cluster, view.namespace).places


def _seen(db: Database, view: OutboundView) -> Iterator[tuple[OutboundView, str]]:
    """Namespaces of services, and whose view of them this one shares."""
    for place in _places(db, view):
        yield onlooker(db, view, place), place


def _resource(message: Message) -> Resource:
    return Resource.of(message, message.name)  # type: ignore[attr-defined]


def _by_name(bundles: Iterable[Resources]) -> ByName:
    """One mapping; where two claim a name the first has it."""
    found: dict[str, Resource] = {}
    for bundle in bundles:
        for resource in bundle:
            found.setdefault(resource.name, resource)
    return found
