"""Outbound listeners of a sidecar: HTTP by port, TCP and TLS by address, TLS also by SNI within the port.

A service with an address has listeners of its own for ports that are not plain HTTP; all HTTP services of a port share
`0.0.0.0_<port>`. What no listener names passes through the capture listener (compile.envoy adds it).
"""

from collections.abc import Iterable, Iterator

from msgspec import structs

from tulle.compile.addresses import network, ranges, singles
from tulle.compile.destinations import destinations_for, name_of, treatment
from tulle.compile.inbound import CAPTURE_PORTS, TAKEN_PORTS
from tulle.compile.keyed import TABLE, http_port, http_ports_asked, mesh_ranges, pushed
from tulle.compile.routes import hosts_on, is_held_by_address, is_routed, placer
from tulle.compile.scope import MESH, mesh_routes
from tulle.compile.sending import stream_targets
from tulle.compile.tunnels import is_tunnelled
from tulle.compile.views import OutboundView
from tulle.dialects.inputs import settings
from tulle.dialects.kubernetes import endpoints, service
from tulle.dialects.routing import route_set
from tulle.engine import Database, query
from tulle.model.intent import PortProtocol, Resolution, Service, ServicePort, TcpMatch, TlsMode
from tulle.model.keys import ServiceKey, selects
from tulle.model.plan import BLACK_HOLE, PASSTHROUGH, Asking, HttpChain, Listener, RouteTable, TcpChain, WeightedTarget
from tulle.xds.names import outbound

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - the name of a captured destination, nothing is bound


def table_of(host: str, port: int) -> str:
    """The route table of a port whose protocol is sniffed."""
    return f"{host}:{port}"


def sniffed_table(host: str, port: int) -> RouteTable:
    """That table: the service's own, so any Host leads to it."""
    return RouteTable(table_of(host, port), (host,), None)


@query
def http_ports(db: Database, view: OutboundView) -> tuple[int, ...]:
    """Ports with a shared route table."""
    ports = {*pushed(db, view).ports, 80}
    return tuple(sorted(port for port in ports - TAKEN_PORTS if hosts_on(db, view, port)))


@query
def shared_ports(db: Database, view: OutboundView) -> tuple[int, ...]:
    """Ports with a listener for any address: HTTP, TLS by SNI, and addresses given as ranges."""
    table = pushed(db, view)
    found = set(http_ports(db, view))
    if view.is_on_demand:  # the others' requests are asked for by the capture listener itself
        found.update(port for port, use in http_ports_asked(db, view.cluster, view.namespace) if use.is_sniffed)
    for port, services in table.ports.items():
        if port in TAKEN_PORTS:
            continue
        if any(protocol.is_tls or _lacks_address(db, key) for key, protocol in services if not protocol.is_http):
            found.add(port)
    return tuple(sorted(found))


@query
def shared_listener(db: Database, view: OutboundView, port: int) -> Listener:
    """`0.0.0.0_<port>`: plain HTTP by Host, TLS by SNI, ranges by destination, everything else as unknown."""
    has_http = bool(hosts_on(db, view, port))
    streams = tuple(_first_of_each(_shared_streams(db, view, port)))
    chains: list[HttpChain | TcpChain] = list(streams)
    asked = _asked_chains(db, view, port) if view.is_on_demand else ()
    if has_http:
        # beside TLS services HTTP must prove itself, so that TLS to names nobody declares goes on as unknown
        chains.append(HttpChain(str(port), only_plain_http=bool(streams)))
    if not any(_takes_everything(chain) for chain in chains):
        unknown = BLACK_HOLE if settings(db).registry_only else PASSTHROUGH
        chains.append(TcpChain((WeightedTarget(unknown, 1),), None))
    origins = tuple(chain.origin for chain in streams if chain.origin)
    return Listener(f"{ANY_ADDRESS}_{port}", ANY_ADDRESS, port, binds=False, chains=(*asked, *chains), origins=origins)


@query
def asking(db: Database, view: OutboundView) -> Asking:
    """What an on-demand view's capture listener asks for: HTTP ports that need no listener of their own, and bytes."""
    own = set(shared_ports(db, view))
    uses = [found for found in http_ports_asked(db, view.cluster, view.namespace) if found[0] not in own]
    streams: dict[str, list[int]] = {}
    for port, use in uses:
        for address in use.streams:
            streams.setdefault(network(address), []).append(port)
    return Asking(
        mesh_ranges(db, view.cluster),
        tuple(port for port, _ in uses),
        tuple((cidr, tuple(ports)) for cidr, ports in sorted(streams.items())),
    )


@query
def service_listeners(db: Database, view: OutboundView, key: ServiceKey) -> tuple[Listener, ...]:
    """Listeners of one service's own addresses: one per address and port that is not parsed as HTTP."""
    found = service(db, key)
    if found is None:
        return ()
    made = []
    for port in found.ports:
        if port.protocol is PortProtocol.UDP or port.number in CAPTURE_PORTS:
            continue
        if port.protocol.is_http and not _stands_alone(db, view, key, port.number):
            continue
        chains = _own_chains(db, view, found, port)
        for address in own_addresses(db, found, port.number):
            if first_at(db, view, address, port.number) == key:
                name = f"{address}_{port.number}"
                made.append(Listener(name, address, port.number, binds=False, chains=chains, origins=(found.origin,)))
    return tuple(made)


@query
def first_at(db: Database, view: OutboundView, address: str, port: int) -> ServiceKey | None:
    """Which service an address and port belong to: the first by name where several claim them."""
    for key, protocol in pushed(db, view).ports.get(port, ()):
        found = service(db, key)
        if found is None or (protocol.is_http and not _stands_alone(db, view, key, port)):
            continue
        if address in own_addresses(db, found, port):
            return key
    return None


def _stands_alone(db: Database, view: OutboundView, key: ServiceKey, port: int) -> bool:
    """Whether an HTTP port is not one of the many that its number's shared listener parses."""
    return is_held_by_address(db, view, key, port) or (view.relays and is_relayed(db, view, key, port))


@query
def is_relayed(db: Database, view: OutboundView, key: ServiceKey, port: int) -> bool:
    """Whether a client of depth l4 passes HTTP to a service's own address as bytes: nothing needs its requests.

    Rules of routes do, and so may anything a destination says of requests: then the port is parsed as ever.
    """
    found = service(db, key)
    return found is not None and _is_left_alone(db, view, found) and not is_routed(db, view, port, key.host)


def _is_left_alone(db: Database, view: OutboundView, found: Service) -> bool:
    """Whether connections go to the mesh's own endpoints, and no destination says how they are to be treated."""
    if found.is_external or found.resolution is not Resolution.STATIC:
        return False
    policy = treatment(db, destinations_for(db, view, found.key)).policy
    return not (policy.policies or policy.ports or (policy.tls and policy.tls.mode is not TlsMode.ISTIO_MUTUAL))


def own_addresses(db: Database, found: Service, port: int) -> tuple[str, ...]:
    """VIPs, or the pod addresses of a headless service; ranges belong to the shared listener."""
    if found.resolution is Resolution.HEADLESS:
        return singles(sorted({endpoint.address for endpoint in endpoints(db, found.key, port)}))
    return singles(found.addresses)


def _own_chains(
    db: Database, view: OutboundView, found: Service, port: ServicePort
) -> tuple[HttpChain | TcpChain, ...]:
    if port.protocol.is_http and is_held_by_address(db, view, found.key, port.number):
        return (HttpChain(table_of(found.key.host, port.number)),)
    if port.protocol.is_http:
        own = WeightedTarget(outbound(port.number, found.key.host, ""), 1)
        return (TcpChain((own,), name_of(found), origin=found.origin, carries_http=True),)
    streams = _stream_chains(db, view, found, port)
    if port.protocol is PortProtocol.AUTO:
        return (HttpChain(table_of(found.key.host, port.number), only_plain_http=True), *streams)
    return streams


def _stream_chains(db: Database, view: OutboundView, found: Service, port: ServicePort) -> tuple[TcpChain, ...]:
    """One chain per matching TCP or TLS rule, the service's own cluster last where no rule takes everything."""
    chains: list[TcpChain] = []
    keys = mesh_routes(db, view.cluster, view.namespace).find(found.key.host)
    routes = route_set(db, keys[0]) if keys else None
    place = placer(db, view, port.number)
    name = name_of(found)
    for rule in (*routes.tls, *routes.tcp) if routes else ():
        for match in rule.matches or (TcpMatch(),):
            if not _accepts(match, view, port.number):
                continue
            chain = TcpChain(
                stream_targets(rule, place),
                name,
                server_names(match.sni_hosts),
                match.destination_cidrs,
                origin=rule.origin,
            )
            chains.append(chain)
            if _takes_everything(chain):
                return tuple(_first_of_each(chains))
    own = WeightedTarget(outbound(port.number, found.key.host, ""), 1)
    tunnel = f"{found.key.host}:{port.number}" if _is_tunnelled(db, view, found, port) else ""
    return tuple(_first_of_each([*chains, TcpChain((own,), name, origin=found.origin, tunnels_to=tunnel)]))


def _is_tunnelled(db: Database, view: OutboundView, found: Service, port: ServicePort) -> bool:
    """Whether a client of depth l4 sends its connections as streams: limits of connections would not count them."""
    return (
        view.relays
        and port.protocol is PortProtocol.TCP
        and _is_left_alone(db, view, found)
        and is_tunnelled(db, found.key, port.number)
    )


def server_names(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """SNI to match; none where any will do (Envoy knows no bare `*`)."""
    return () if "*" in hosts else tuple(dict.fromkeys(hosts))


def _takes_everything(chain: HttpChain | TcpChain) -> bool:
    if isinstance(chain, HttpChain):
        return not chain.only_plain_http and not chain.server_names
    return not chain.server_names and not chain.destination_cidrs


def _first_of_each(chains: Iterable[TcpChain]) -> Iterator[TcpChain]:
    """Envoy refuses a listener in which two chains match the same, in part even: the first in order is meant."""
    seen: set[tuple[str, str]] = set()
    for chain in chains:
        groups: dict[tuple[str, ...], list[str]] = {}
        for cidr in map(network, chain.destination_cidrs) if chain.destination_cidrs else ("",):
            place = "" if cidr.endswith("/0") else cidr
            fresh = tuple(name for name in chain.server_names or ("",) if (name, place) not in seen)
            seen.update((name, place) for name in fresh)
            if fresh:
                groups.setdefault(fresh, []).append(place)
        for names, places in groups.items():
            cidrs = () if "" in places else tuple(places)
            yield structs.replace(chain, server_names=tuple(filter(None, names)), destination_cidrs=cidrs)


def _accepts(match: TcpMatch, view: OutboundView, port: int) -> bool:
    return (
        match.port in (None, port)
        and (not match.gateways or MESH in match.gateways)
        and match.source_namespace in ("", view.namespace)
        and selects(match.source_labels, view.labels)
    )


def _shared_streams(db: Database, view: OutboundView, port: int) -> Iterator[TcpChain]:
    """TLS services by SNI and services of address ranges."""
    for key, protocol in pushed(db, view).ports.get(port, ()):
        found = None if protocol.is_http or protocol is PortProtocol.UDP else service(db, key)
        if found is None:
            continue
        declared = next(item for item in found.ports if item.number == port)
        wide = ranges(found.addresses)
        without_address = not found.addresses and found.resolution is not Resolution.HEADLESS
        for chain in _stream_chains(db, view, found, declared):
            names = chain.server_names or (server_names((key.host,)) if protocol.is_tls else ())
            if not names and not wide and not without_address:
                continue
            cidrs = chain.destination_cidrs or (() if names else wide)
            yield structs.replace(chain, server_names=names, destination_cidrs=cidrs)


def _asked_chains(db: Database, view: OutboundView, port: int) -> Iterator[HttpChain | TcpChain]:
    """Into the mesh's ranges HTTP, and what turns out to be; addresses where the port carries bytes are told apart."""
    use = http_port(db, view.cluster, view.namespace, port)
    if use is None:
        return
    cidrs = mesh_ranges(db, view.cluster)
    yield HttpChain(TABLE, only_plain_http=use.is_sniffed, destination_cidrs=cidrs, is_on_demand=True)
    if use.is_sniffed:
        yield TcpChain((), None, destination_cidrs=cidrs, is_on_demand=True)
    if use.streams:
        yield TcpChain((), None, destination_cidrs=tuple(map(network, use.streams)), is_on_demand=True)


def _lacks_address(db: Database, key: ServiceKey) -> bool:
    found = service(db, key)
    if found is None or found.resolution is Resolution.HEADLESS:
        return False
    return not found.addresses or bool(ranges(found.addresses))
