"""What on-demand sidecars ask for by address and port, and what is pushed to all of them as in full push.

Asked for: ports of services whose addresses lie in the mesh's ranges. Pushed, because no address tells it: headless services,
wildcards, address ranges, addresses elsewhere, hosts without an address, and TCP or TLS ports with routes of their own.
What an asked name means is `ondemand`'s. Decision 0008.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from msgspec import Struct

from tulle.compile.addresses import is_ip, network, ranges, singles
from tulle.compile.inbound import TAKEN_PORTS
from tulle.compile.scope import ServiceTable, routes_of, service_seen, service_table, slice_of, sliced
from tulle.compile.views import OutboundView
from tulle.dialects.inputs import settings
from tulle.dialects.kubernetes import namespaces, service, service_ranges, services_in
from tulle.dialects.routing import route_set
from tulle.engine import Database, gate, query
from tulle.model.intent import PortProtocol, Resolution
from tulle.model.keys import ServiceKey

TABLE = "vip"
"""The one route table of on-demand HTTP; its virtual hosts are called `vip/<address>:<port>`."""
STREAMS = "tcp|"
"""Begins the cluster of an address and port that carries bytes: `tcp|<address>:<port>`."""

_AROUND = {4: 16, 6: 112}
"""How wide a range is taken around an address where nobody says which ranges are the mesh's, by IP version."""
_LONGEST_NAME = 64
_MOST_PARSED = 1 << 16


class Asked(NamedTuple):
    """What a name asks for."""

    address: str
    port: int
    is_http: bool

    @property
    def destination(self) -> str:
        """`10.96.3.7:80`, as Envoy writes a local address."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{TABLE}/{self.destination}" if self.is_http else f"{STREAMS}{self.destination}"


class Place(Struct, frozen=True):
    """Where one service has its addresses."""

    key: ServiceKey
    addresses: tuple[str, ...]
    is_kubernetes: bool
    is_allocated: bool


class PortUse(Struct, frozen=True, order=True):
    """How the services that are asked for use one port number."""

    is_sniffed: bool
    """For some of them it is found out per connection whether it is HTTP."""
    streams: tuple[str, ...]
    """Addresses where the port was declared to carry bytes."""


class Split(Struct, frozen=True):
    """The services a namespace sees, by how its on-demand sidecars come to know them."""

    pushed: ServiceTable
    http_ports: Mapping[int, PortUse]
    """Ports that speak HTTP, or may, at addresses that are asked for."""


@lru_cache(maxsize=_MOST_PARSED)
def parse(name: str) -> Asked | None:
    """The address and port of a name; None for any name an on-demand sidecar does not ask for. Names have one spelling."""
    if len(name) > _LONGEST_NAME:
        return None
    is_http = name.startswith(f"{TABLE}/")
    destination = name[len(TABLE) + 1 :] if is_http else name.removeprefix(STREAMS)
    host, _, port = destination.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (is_ip(host) and port.isdecimal() and 0 < int(port) < 1 << 16):
        return None
    asked = Asked(str(ip_address(host)), int(port), is_http)
    return asked if asked.name == name else None


@query
def mesh_ranges(db: Database, cluster: str) -> tuple[str, ...]:
    """CIDRs in which destinations are asked for: the setting's, else the API's, else around the addresses of Kubernetes' services."""
    mesh = settings(db)
    given = (
        mesh.service_cidrs
        or service_ranges(db, cluster)
        or _around(address for place in _places(db, cluster) if place.is_kubernetes for address in place.addresses)
    )
    return tuple(sorted({network(cidr) for cidr in (*given, mesh.auto_allocate_cidr)}))


@query
def keyable(db: Database, cluster: str) -> frozenset[ServiceKey]:
    """Services all of whose addresses are single ones in the mesh's ranges."""
    blocks = [ip_network(cidr) for cidr in mesh_ranges(db, cluster)]

    def is_inside(address: str) -> bool:
        found = ip_address(address)
        return any(found.version == block.version and found in block for block in blocks)

    return frozenset(place.key for place in _places(db, cluster) if all(map(is_inside, place.addresses)))


@query
def allocated(db: Database, cluster: str) -> frozenset[ServiceKey]:
    """Services whose address is of our making: who found another elsewhere is known by Host or SNI, so these are pushed too."""
    return frozenset(place.key for place in _places(db, cluster) if place.is_allocated)


@query
def owners(db: Database, cluster: str) -> Mapping[str, tuple[ServiceKey, ...]]:
    """The services at each address, by name."""
    found: dict[str, list[ServiceKey]] = {}
    for place in _places(db, cluster):
        for address in place.addresses:
            found.setdefault(address, []).append(place.key)
    return {address: tuple(sorted(keys)) for address, keys in found.items()}


@query
def _owners_by_slice(db: Database, cluster: str) -> tuple[Mapping[str, tuple[ServiceKey, ...]], ...]:
    """The services at each address that are asked for by it, as far as addresses decide, in slices."""
    by_address = keyable(db, cluster)
    return sliced(
        (address, kept)
        for address, keys in owners(db, cluster).items()
        if (kept := tuple(key for key in keys if key in by_address))
    )


@gate
def _owners_in(db: Database, cluster: str, at: int) -> Mapping[str, tuple[ServiceKey, ...]]:
    """One slice: who asks for an address does not even look when a service comes to an address of another slice."""
    return _owners_by_slice(db, cluster)[at]


@query
def owners_at(db: Database, cluster: str, address: str) -> tuple[ServiceKey, ...]:
    """The services at one address that are asked for by it, as far as addresses decide."""
    return _owners_in(db, cluster, slice_of(address)).get(address, ())


@query
def owner_of(db: Database, view: OutboundView, address: str, port: int) -> tuple[ServiceKey, PortProtocol] | None:
    """The visible service that is asked for by an address and port; the first by name where several claim them.

    Rests on what is at the address alone: the services that come and go elsewhere are cut off.
    """
    for key in owners_at(db, view.cluster, address):
        is_seen = service_seen(db, view.cluster, view.namespace, key.host) == key
        found = service(db, key) if is_seen else None
        for declared in found.ports if found else ():
            if declared.number == port and _is_by_address(db, view.cluster, view.namespace, key, declared.protocol):
                return key, declared.protocol
    return None


@query
def split(db: Database, cluster: str, namespace: str) -> Split:
    """What is pushed and what is asked for. O(services), when a service or port comes or goes."""
    whole, by_address, elsewhere = service_table(db, cluster, namespace), keyable(db, cluster), allocated(db, cluster)
    pushed: dict[int, tuple[tuple[ServiceKey, PortProtocol], ...]] = {}
    uses: dict[int, PortUse] = {}
    for number, found in whole.ports.items():
        asked_for = {one for one in found if one[0] in by_address and _is_by_address(db, cluster, namespace, *one)}
        by_name = {one for one in asked_for if one[0] in elsewhere and (one[1].is_http or one[1].is_tls)}
        kept = tuple(one for one in found if one in by_name or one not in asked_for)
        if kept:
            pushed[number] = kept
        protocols = {protocol for _, protocol in asked_for}
        if number not in TAKEN_PORTS and any(one.is_http or one is PortProtocol.AUTO for one in protocols):
            streams = (key for key, protocol in asked_for if not protocol.is_http and protocol is not PortProtocol.AUTO)
            uses[number] = PortUse(PortProtocol.AUTO in protocols, _addresses(db, streams))
    keys = {key for found in pushed.values() for key, _ in found}
    hosts = {host: key for host, key in whole.hosts.items() if key in keys}
    wildcards = tuple(host for host in whole.wildcards if host in hosts)
    kept_places = {place: tuple(key for key in found if key in keys) for place, found in whole.places.items()}
    places = {place: found for place, found in kept_places.items() if found}
    return Split(ServiceTable(hosts, pushed, wildcards, places, whole.is_plain), uses)


@gate
def pushed_table(db: Database, cluster: str, namespace: str) -> ServiceTable:
    """Services of which on-demand sidecars of a namespace hold everything."""
    return split(db, cluster, namespace).pushed


@gate
def http_port(db: Database, cluster: str, namespace: str, port: int) -> PortUse | None:
    """How a port is used by services that are asked for; None where none of them may speak HTTP."""
    return split(db, cluster, namespace).http_ports.get(port)


@gate
def http_ports_asked(db: Database, cluster: str, namespace: str) -> tuple[tuple[int, PortUse], ...]:
    """Every port at which somebody who is asked for may speak HTTP."""
    return tuple(sorted(split(db, cluster, namespace).http_ports.items()))


def pushed(db: Database, view: OutboundView) -> ServiceTable:
    """The services of which a view holds everything: all that it sees, unless it is on demand."""
    if view.is_on_demand:
        return pushed_table(db, view.cluster, view.namespace)
    return service_table(db, view.cluster, view.namespace)


@query
def _places(db: Database, cluster: str) -> tuple[Place, ...]:
    return tuple(found for place in namespaces(db, cluster) for found in _places_in(db, cluster, place))


@query
def _places_in(db: Database, cluster: str, namespace: str) -> tuple[Place, ...]:
    return tuple(
        Place(item.key, singles(item.addresses), item.is_kubernetes, bool(item.auto_addresses))
        for item in services_in(db, cluster, namespace)
        if item.resolution is not Resolution.HEADLESS and singles(item.addresses) and not ranges(item.addresses)
    )


def _is_by_address(db: Database, cluster: str, namespace: str, key: ServiceKey, protocol: PortProtocol) -> bool:
    """Whether the address of a port, as its service may be asked for, says where its connections go."""
    if protocol is PortProtocol.UDP:
        return False
    return protocol.is_http or not _has_stream_routes(db, cluster, namespace, key.host)


def _has_stream_routes(db: Database, cluster: str, namespace: str, host: str) -> bool:
    keys = routes_of(db, cluster, namespace, host)
    found = route_set(db, keys[0]) if keys else None
    return found is not None and bool(found.tls or found.tcp)


def _addresses(db: Database, keys: Iterable[ServiceKey]) -> tuple[str, ...]:
    found = (service(db, key) for key in keys)
    return tuple(sorted({address for item in found if item for address in singles(item.addresses)}))


def _around(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple({network(f"{one}/{_AROUND[ip_address(one).version]}") for one in addresses})
