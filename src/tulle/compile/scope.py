"""What a client in a namespace can see: services, route sets and destinations, found by host.

Every table here holds names only, so that an edit of what a name means is cut off here. Visibility is Istio's exportTo;
where two things claim one host the client's own namespace wins, then the oldest, then the name.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar
from zlib import crc32

from msgspec import Struct

from tulle.dialects.istio.destination_rule import destination, destinations_in
from tulle.dialects.kubernetes import namespaces, services_in
from tulle.dialects.routing import route_set, route_sets_in
from tulle.engine import Database, gate, query
from tulle.model.intent import PortProtocol, RouteSet
from tulle.model.keys import ObjectKey, ServiceKey, covers

_Value = TypeVar("_Value")
NOBODY = ""
"""The namespace of a client that could be anybody."""
MESH = "mesh"
"""Istio's name for every sidecar, where a route names its gateways."""
_SLICES = 64
"""What is looked up by name among everything lies in so many slices, so that one more name changes one of them."""


class ServicePorts(Struct, frozen=True):
    """What a port table needs to know of a service."""

    key: ServiceKey
    exported_to: tuple[str, ...]
    ports: tuple[tuple[int, PortProtocol], ...]


class ServiceTable(Struct, frozen=True):
    """The services a namespace sees."""

    hosts: Mapping[str, ServiceKey]
    ports: Mapping[int, tuple[tuple[ServiceKey, PortProtocol], ...]]
    wildcards: tuple[str, ...]
    """Wildcard hosts, longest first."""
    places: Mapping[str, tuple[ServiceKey, ...]]
    """By the namespace they are of, sorted."""
    is_plain: bool
    """No two namespaces offer one host."""


class Claim(Struct, frozen=True):
    """One object's claim of hosts, for finding it."""

    key: ObjectKey
    created: str
    hosts: tuple[str, ...]
    exported_to: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    by_precedence: bool = False
    """One of several that are merged; where another claims the host as a whole, that comes first."""


class HostTable(Struct, frozen=True):
    """Objects by the host they claim, in order of precedence."""

    exact: Mapping[str, tuple[ObjectKey, ...]]
    wildcards: tuple[tuple[str, tuple[ObjectKey, ...]], ...]
    """Longest first."""

    def find(self, host: str) -> tuple[ObjectKey, ...]:
        """The objects of the most specific claim that covers the host."""
        found = self.exact.get(host)
        if found:
            return found
        return next((keys for wildcard, keys in self.wildcards if covers(wildcard, host)), ())


def slice_of(name: str) -> int:
    """Where a name lies, the same in every process."""
    return crc32(name.encode()) % _SLICES


def sliced(entries: Iterable[tuple[str, _Value]]) -> tuple[Mapping[str, _Value], ...]:
    """What is found by name, in slices."""
    found: tuple[dict[str, _Value], ...] = tuple({} for _ in range(_SLICES))
    for name, value in entries:
        found[slice_of(name)][name] = value
    return found


def is_visible(exported_to: Iterable[str], namespace: str) -> bool:
    """Istio's exportTo: `*`, or the namespace."""
    return any(target in ("*", namespace) for target in exported_to)


@gate
def service_ports_in(db: Database, cluster: str, namespace: str) -> tuple[ServicePorts, ...]:
    """Names and ports of a namespace's services: changes only when one of these does."""
    return tuple(
        ServicePorts(item.key, item.exported_to, tuple((port.number, port.protocol) for port in item.ports))
        for item in services_in(db, cluster, namespace)
    )


class Offer(Struct, frozen=True):
    """The services of one namespace, as far as one client sees them, arranged for tables."""

    hosts: Mapping[str, ServiceKey]
    """In order of the keys."""
    ports: Mapping[int, tuple[tuple[ServiceKey, PortProtocol], ...]]


@query
def offer(db: Database, cluster: str, place: str, client: str) -> Offer:
    """What a namespace (`place`) offers to clients of another; `NOBODY` sees what everybody sees."""
    hosts: dict[str, ServiceKey] = {}
    ports: dict[int, list[tuple[ServiceKey, PortProtocol]]] = {}
    for item in sorted(service_ports_in(db, cluster, place), key=lambda item: item.key):
        if item.key.host not in hosts and is_visible(item.exported_to, client):
            hosts[item.key.host] = item.key
            for number, protocol in item.ports:
                ports.setdefault(number, []).append((item.key, protocol))
    return Offer(hosts, {number: tuple(sorted(found)) for number, found in ports.items()})


@query
def audience(db: Database, cluster: str, place: str, client: str) -> str:
    """Whose eyes tell what a namespace offers to the client: `NOBODY`'s, where nothing is for particular clients."""
    exports = {item.exported_to for item in service_ports_in(db, cluster, place)}
    return NOBODY if exports <= {("*",)} else client


@query
def service_table(db: Database, cluster: str, namespace: str) -> ServiceTable:
    """The services that clients of a namespace see: the namespaces' offers, laid side by side."""
    if namespace != NOBODY:
        anybody = service_table(db, cluster, NOBODY)
        if anybody.is_plain and all(
            audience(db, cluster, place, namespace) == NOBODY for place in namespaces(db, cluster)
        ):
            return anybody
    offers = {
        place: offer(db, cluster, place, audience(db, cluster, place, namespace))
        for place in sorted(namespaces(db, cluster))
    }
    hosts: dict[str, ServiceKey] = {}
    for place in reversed(_own_first(offers, namespace)):
        hosts.update(offers[place].hosts)
    is_plain = len(hosts) == sum(len(one.hosts) for one in offers.values())
    ports: dict[int, list[tuple[ServiceKey, PortProtocol]]] = {}
    places: dict[str, tuple[ServiceKey, ...]] = {}
    for place, one in offers.items():
        if keys := tuple(key for host, key in one.hosts.items() if is_plain or hosts[host] == key):
            places[place] = keys
        for number, found in one.ports.items():
            seen = found if is_plain else [entry for entry in found if hosts[entry[0].host] == entry[0]]
            ports.setdefault(number, []).extend(seen)
    wildcards = sorted((host for host in hosts if host.startswith("*")), key=lambda host: (-len(host), host))
    return ServiceTable(
        hosts, {number: tuple(found) for number, found in ports.items() if found}, tuple(wildcards), places, is_plain
    )


@query
def _seen_by_slice(db: Database, cluster: str, namespace: str) -> tuple[Mapping[str, ServiceKey], ...]:
    """The services that clients of a namespace see, by host, in slices."""
    table = service_table(db, cluster, namespace)
    if namespace != NOBODY and table is service_table(db, cluster, NOBODY):
        return _seen_by_slice(db, cluster, NOBODY)
    return sliced(table.hosts.items())


@gate
def _seen_in(db: Database, cluster: str, namespace: str, at: int) -> Mapping[str, ServiceKey]:
    """One slice: what happens to the services of others stops here, for all hosts of this one at once."""
    return _seen_by_slice(db, cluster, namespace)[at]


def service_seen(db: Database, cluster: str, namespace: str, host: str) -> ServiceKey | None:
    """As `service_of`, for the many that ask about few hosts: of those who see a service come, one in 64 looks again."""
    return _seen_in(db, cluster, namespace, slice_of(host)).get(host)


@gate
def service_of(db: Database, cluster: str, namespace: str, host: str) -> ServiceKey | None:
    """The service that clients of a namespace call by exactly this host. Cuts off what happens to others."""
    return service_seen(db, cluster, namespace, host)


@gate
def _wildcards(db: Database, cluster: str, namespace: str) -> tuple[tuple[str, ServiceKey], ...]:
    table = service_table(db, cluster, namespace)
    return tuple((wildcard, table.hosts[wildcard]) for wildcard in table.wildcards)


@query
def service_found(db: Database, cluster: str, namespace: str, host: str) -> ServiceKey | None:
    """The same, by the longest wildcard too."""
    exact = service_of(db, cluster, namespace, host)
    if exact is not None:
        return exact
    return next((key for wildcard, key in _wildcards(db, cluster, namespace) if covers(wildcard, host)), None)


@query
def services_seen(db: Database, cluster: str, namespace: str, place: str) -> tuple[ServiceKey, ...]:
    """Services of one namespace (`place`) that clients of another see, sorted."""
    return service_table(db, cluster, namespace).places.get(place, ())


@query
def routes_of(db: Database, cluster: str, namespace: str, host: str) -> tuple[ObjectKey, ...]:
    """Route sets that apply to a host for sidecars of a namespace, by precedence."""
    return mesh_routes(db, cluster, namespace).find(host)


@gate
def route_claims_in(db: Database, cluster: str, namespace: str) -> tuple[Claim, ...]:
    """Which hosts the route sets of a namespace claim."""
    return tuple(claim for item in route_sets_in(db, cluster, namespace) for claim in _claims(item))


def _claims(item: RouteSet) -> Iterator[Claim]:
    """One claim, and for each service that is its parent one more: of the service's namespace for all, of another for its own."""
    gateways = tuple(name for name in item.gateways if name != MESH) if item.parents else item.gateways
    yield Claim(item.key, item.created, item.hosts, item.exported_to, gateways, item.by_precedence)
    for one in item.parents:
        clients = item.exported_to if one.namespace == item.key.namespace else (item.key.namespace,)
        yield Claim(item.key, item.created, (one.host,), clients, (MESH,), by_precedence=True)


@query
def mesh_routes(db: Database, cluster: str, namespace: str) -> HostTable:
    """Route sets that apply to sidecars of a namespace, by host."""
    claims = [
        claim
        for place in namespaces(db, cluster)
        for claim in route_claims_in(db, cluster, place)
        if MESH in claim.gateways and is_visible(claim.exported_to, namespace)
    ]
    return _by_host(claims, namespace)


@query
def gateway_routes(db: Database, cluster: str, gateway: str) -> HostTable:
    """Route sets bound to one gateway (`namespace/name`), by host."""
    return _by_host(list(_claims_by_gateway(db, cluster).get(gateway, ())), "")


@query
def _claims_by_gateway(db: Database, cluster: str) -> Mapping[str, tuple[Claim, ...]]:
    found: dict[str, list[Claim]] = {}
    for place in namespaces(db, cluster):
        for claim in route_claims_in(db, cluster, place):
            for gateway in claim.gateways:
                if gateway != MESH:
                    found.setdefault(gateway, []).append(claim)
    return {gateway: tuple(claims) for gateway, claims in found.items()}


@query
def destinations_routed(db: Database, cluster: str, namespace: str) -> frozenset[str]:
    """Hosts whose routes are for the service as a destination, whatever name it is called by."""
    return frozenset(
        host
        for place in namespaces(db, cluster)
        for claim in route_claims_in(db, cluster, place)
        if claim.by_precedence and MESH in claim.gateways and is_visible(claim.exported_to, namespace)
        for host in claim.hosts
    )


@query
def is_destination_routed(db: Database, cluster: str, namespace: str, host: str) -> bool:
    """Whether one host's routes are. Cuts off what happens to others."""
    return host in destinations_routed(db, cluster, namespace)


@gate
def destination_claims_in(db: Database, cluster: str, namespace: str) -> tuple[Claim, ...]:
    """Which hosts the destinations of a namespace claim."""
    return tuple(
        Claim(item.key, item.created, (item.host,), item.exported_to)
        for item in destinations_in(db, cluster, namespace)
    )


@query
def destination_table(db: Database, cluster: str, owner: str, client: str) -> HostTable:
    """Destinations that one namespace offers to clients of another, by host."""
    return _by_host(
        [claim for claim in destination_claims_in(db, cluster, owner) if is_visible(claim.exported_to, client)], owner
    )


@query
def label_keys_in_use(db: Database, cluster: str) -> frozenset[str]:
    """Label keys that some rule asks clients about: nothing else of a client's labels shapes its configuration."""
    return frozenset(key for place in namespaces(db, cluster) for key in _label_keys_in(db, cluster, place))


@gate
def _label_keys_in(db: Database, cluster: str, namespace: str) -> frozenset[str]:
    keys: set[str] = set()
    for claim in route_claims_in(db, cluster, namespace):
        keys |= _source_keys(db, claim.key)
    for claim in destination_claims_in(db, cluster, namespace):
        found = destination(db, claim.key)
        keys.update(name for name, _ in (found.selector if found else ()))
    return frozenset(keys)


@query
def source_namespaces(db: Database, key: ObjectKey) -> frozenset[str]:
    """Namespaces that a route set's matches ask clients to be in."""
    found = route_set(db, key)
    if found is None:
        return frozenset()
    http = (match.source_namespace for rule in found.http for match in rule.matches)
    streams = (match.source_namespace for rule in (*found.tls, *found.tcp) for match in rule.matches)
    return frozenset((*http, *streams)) - {""}


@query
def _source_keys(db: Database, key: ObjectKey) -> frozenset[str]:
    found = route_set(db, key)
    if found is None:
        return frozenset()
    http = (match.source_labels for rule in found.http for match in rule.matches)
    streams = (match.source_labels for rule in (*found.tls, *found.tcp) for match in rule.matches)
    return frozenset(name for labels in (*http, *streams) for name, _ in labels)


def _own_first(places: Iterable[str], own: str) -> list[str]:
    return sorted(places, key=lambda place: (place != own, place))


def _by_host(claims: list[Claim], own: str) -> HostTable:
    claims.sort(key=lambda claim: (claim.key.namespace != own, claim.by_precedence, claim.created, claim.key))
    found: dict[str, list[ObjectKey]] = {}
    for claim in claims:
        for host in claim.hosts:
            keys = found.setdefault(host, [])
            if claim.key not in keys:
                keys.append(claim.key)
    exact = {host: tuple(keys) for host, keys in found.items() if not host.startswith("*")}
    wild = sorted((host for host in found if host.startswith("*")), key=lambda host: (-len(host), host))
    return HostTable(exact, tuple((host, tuple(found[host])) for host in wild))
