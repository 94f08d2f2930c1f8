"""Outbound listeners of a sidecar: HTTP by port, TCP and TLS by address, TLS also by SNI within the port.

A service with an address has listeners of its own for ports that are not plain HTTP; all HTTP services of a port share
`0.0.0.0_<port>`. What no listener names passes through the capture listener (compile.envoy adds it).
"""

from collections.abc import Iterator

from tulle.compile.destinations import name_of
from tulle.compile.routes import BLACK_HOLE, PASSTHROUGH, hosts_on, placer
from tulle.compile.scope import MESH, mesh_routes, service_table
from tulle.compile.views import OutboundView
from tulle.dialects.inputs import settings
from tulle.dialects.istio.virtual_service import route_set
from tulle.dialects.kubernetes import endpoints, service
from tulle.engine import Database, query
from tulle.model.intent import PortProtocol, Resolution, Service, ServicePort, TcpMatch
from tulle.model.keys import ServiceKey, selects
from tulle.model.plan import HttpChain, Listener, TcpChain, WeightedTarget
from tulle.xds.names import outbound

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - the name of a captured destination, nothing is bound


def table_of(host: str, port: int) -> str:
    """The route table of a port whose protocol is sniffed."""
    return f"{host}:{port}"


@query
def http_ports(db: Database, view: OutboundView) -> tuple[int, ...]:
    """Ports with a shared route table."""
    ports = service_table(db, view.cluster, view.namespace).ports
    return tuple(sorted(port for port in {*ports, 80} if hosts_on(db, view, port)))


@query
def shared_ports(db: Database, view: OutboundView) -> tuple[int, ...]:
    """Ports with a listener for any address: HTTP, TLS by SNI, and addresses given as ranges."""
    table = service_table(db, view.cluster, view.namespace)
    found = set(http_ports(db, view))
    for port, services in table.ports.items():
        if any(protocol.is_tls or _lacks_address(db, key) for key, protocol in services if not protocol.is_http):
            found.add(port)
    return tuple(sorted(found))


@query
def shared_listener(db: Database, view: OutboundView, port: int) -> Listener:
    """`0.0.0.0_<port>`: plain HTTP by Host, TLS by SNI, ranges by destination, everything else as unknown."""
    has_http = bool(hosts_on(db, view, port))
    streams = tuple(_shared_streams(db, view, port))
    chains: list[HttpChain | TcpChain] = list(streams)
    if has_http:
        chains.append(HttpChain(str(port)))
    elif not any(not chain.server_names and not chain.destination_cidrs for chain in streams):
        unknown = BLACK_HOLE if settings(db).registry_only else PASSTHROUGH
        chains.append(TcpChain((WeightedTarget(unknown, 1),), None))
    origins = tuple(chain.origin for chain in streams if chain.origin)
    return Listener(f"{ANY_ADDRESS}_{port}", ANY_ADDRESS, port, binds=False, chains=tuple(chains), origins=origins)


@query
def service_listeners(db: Database, view: OutboundView, key: ServiceKey) -> tuple[Listener, ...]:
    """Listeners of one service's own addresses: one per address and port that is not plain HTTP."""
    found = service(db, key)
    if found is None:
        return ()
    made = []
    for port in found.ports:
        if port.protocol.is_http or port.protocol is PortProtocol.UDP:
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
    table = service_table(db, view.cluster, view.namespace)
    for key, protocol in table.ports.get(port, ()):
        found = service(db, key)
        if found and not protocol.is_http and address in own_addresses(db, found, port):
            return key
    return None


def own_addresses(db: Database, found: Service, port: int) -> tuple[str, ...]:
    """VIPs, or the pod addresses of a headless service; ranges belong to the shared listener."""
    if found.resolution is Resolution.HEADLESS:
        return tuple(sorted({endpoint.address for endpoint in endpoints(db, found.key, port)}))
    return tuple(address for address in found.addresses if "/" not in address)


def _own_chains(
    db: Database, view: OutboundView, found: Service, port: ServicePort
) -> tuple[HttpChain | TcpChain, ...]:
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
            targets = tuple(
                WeightedTarget(place(target), target.weight if len(rule.targets) > 1 else 1)
                for target in rule.targets
                if target.weight or len(rule.targets) == 1
            )
            chains.append(TcpChain(targets, name, match.sni_hosts, match.destination_cidrs, origin=rule.origin))
            if not match.sni_hosts and not match.destination_cidrs:
                return _first_of_each(chains)
    own = WeightedTarget(outbound(port.number, found.key.host, ""), 1)
    return _first_of_each([*chains, TcpChain((own,), name, origin=found.origin)])


def _first_of_each(chains: list[TcpChain]) -> tuple[TcpChain, ...]:
    """Envoy refuses a listener in which two chains match the same: the first in order is meant."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], TcpChain] = {}
    for chain in chains:
        found.setdefault((chain.server_names, chain.destination_cidrs), chain)
    return tuple(found.values())


def _accepts(match: TcpMatch, view: OutboundView, port: int) -> bool:
    return (
        match.port in (None, port)
        and (not match.gateways or MESH in match.gateways)
        and match.source_namespace in ("", view.namespace)
        and selects(match.source_labels, view.labels)
    )


def _shared_streams(db: Database, view: OutboundView, port: int) -> Iterator[TcpChain]:
    """TLS services by SNI and services of address ranges. Each SNI and each range once: the first service has it."""
    seen: set[tuple[str, str]] = set()
    for key, protocol in service_table(db, view.cluster, view.namespace).ports.get(port, ()):
        found = service(db, key)
        if found is None or protocol.is_http or protocol is PortProtocol.UDP:
            continue
        declared = next(item for item in found.ports if item.number == port)
        ranges = tuple(address for address in found.addresses if "/" in address)
        without_address = not found.addresses and found.resolution is not Resolution.HEADLESS
        for chain in _stream_chains(db, view, found, declared):
            names = chain.server_names or ((key.host,) if protocol.is_tls else ())
            if not names and not ranges and not without_address:
                continue
            cidrs = chain.destination_cidrs or (() if names else ranges)
            marks = {(name, cidr) for name in names or ("",) for cidr in cidrs or ("",)}
            if marks & seen:
                continue
            seen |= marks
            yield TcpChain(chain.targets, chain.service, names, cidrs, origin=chain.origin)


def _lacks_address(db: Database, key: ServiceKey) -> bool:
    found = service(db, key)
    if found is None or found.resolution is Resolution.HEADLESS:
        return False
    return not found.addresses or any("/" in address for address in found.addresses)
