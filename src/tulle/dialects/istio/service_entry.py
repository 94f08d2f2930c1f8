"""ServiceEntries: each host is a service. Hosts without an address get one of the mesh's own.

Knows no pod and no Kubernetes Service: `dialects/kubernetes/registry.py` adds what a workloadSelector selects. Checks of a written
ServiceEntry are in `service_entry_checks.py`. Source: Istio API reference, networking/v1 ServiceEntry.
"""

from collections.abc import Iterable
from typing import Final

from tulle.dialects.inputs import by_kind, by_namespace, objects, settings
from tulle.dialects.istio.addresses import assigned
from tulle.dialects.istio.schema_services import EntryPort, ServiceEntry, WorkloadEntry
from tulle.dialects.istio.workload_entry import workload_of
from tulle.dialects.reachable import bare_endpoint, endpoint_at
from tulle.engine import Database, gate, query
from tulle.model.intent import Endpoint, PortProtocol, Resolution, Service, ServicePort, Workload
from tulle.model.keys import Labels, ObjectKey, ServiceKey, WorkloadKey, labels_of
from tulle.model.objects import Object
from tulle.model.origin import Origin

GROUP: Final = "networking.istio.io"
KIND: Final = "ServiceEntry"
AUTO_ALLOCATE: Final = "networking.istio.io/enable-autoallocate-ip"
"""Label or annotation; `false` means no address is allocated."""

_PROTOCOLS: Final = {
    "HTTP": PortProtocol.HTTP,
    "HTTP_PROXY": PortProtocol.HTTP,
    "HTTP2": PortProtocol.HTTP2,
    "GRPC": PortProtocol.GRPC,
    "GRPC-WEB": PortProtocol.GRPC,
    "HTTPS": PortProtocol.HTTPS,
    "TLS": PortProtocol.TLS,
    "TCP": PortProtocol.TCP,
    "MONGO": PortProtocol.TCP,
    "REDIS": PortProtocol.TCP,
    "MYSQL": PortProtocol.TCP,
    "UDP": PortProtocol.UDP,
}


def _host_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str]]:
    if key.kind == KIND and key.group == GROUP:
        spec: ServiceEntry = value.spec
        for host in spec.hosts:
            yield key.cluster, host.lower()


entries_by_host = objects.index("entries_by_host", _host_buckets)
"""(cluster, host) -> keys of ServiceEntries of any namespace."""


@gate
def entry_hosts(db: Database, cluster: str, ns: str) -> tuple[str, ...]:
    """Hosts that ServiceEntries of a namespace declare, lower case, sorted, each once."""
    found = (objects(db, key) for key in by_namespace(db, (cluster, KIND, ns)) if key.group == GROUP)
    return tuple(sorted({host.lower() for entry in found if entry for host in entry.spec.hosts}))


@query
def entries_of(db: Database, key: ServiceKey) -> tuple[ObjectKey, ...]:
    """The ServiceEntries of the namespace that declare the host, oldest first: the first decides, all add endpoints."""
    keys = [one for one in entries_by_host(db, (key.cluster, key.host)) if one.namespace == key.namespace]
    if len(keys) < 2:
        return tuple(keys)
    ages = {one: found.created for one in keys if (found := objects(db, one))}
    return tuple(sorted(keys, key=lambda one: (ages.get(one) or "9", one.name)))


@query
def entry_service(db: Database, key: ServiceKey) -> Service | None:
    """The service that ServiceEntries declare under the key; None if none does."""
    entries = [(one, found) for one in entries_of(db, key) if (found := objects(db, one))]
    if not entries:
        return None
    allocated = allocated_address(db, key)
    place, first = entries[0]
    spec: ServiceEntry = first.spec
    ports: dict[int, ServicePort] = {}
    for _, entry in entries:
        for port in entry.spec.ports:
            ports.setdefault(port.number, service_port(port))
    addresses = spec.addresses or ((allocated,) if allocated else ())
    return Service(
        key=key,
        ports=tuple(ports.values()),
        addresses=addresses,
        resolution=Resolution(spec.resolution),
        is_external=spec.location == "MESH_EXTERNAL",
        selector=selector_of(spec),
        exported_to=exported_to(key.namespace, spec.export_to),
        aliases=(),
        subject_alt_names=spec.subject_alt_names,
        origin=Origin(place),
        auto_addresses=() if spec.addresses else addresses,
        is_kubernetes=False,
    )


def service_port(port: EntryPort) -> ServicePort:
    """One port; `protocol` wins over the name."""
    declared = port.protocol.upper()
    if declared in _PROTOCOLS:
        protocol = _PROTOCOLS[declared]
    else:
        protocol = _PROTOCOLS.get(port.name.upper().partition("-")[0], PortProtocol.AUTO)
    return ServicePort(port.number, port.name, protocol, port.target_port or port.number)


def is_known_protocol(word: str) -> bool:
    """Whether a port's `protocol` says something to the mesh."""
    return word.upper() in _PROTOCOLS


def selector_of(spec: ServiceEntry) -> Labels | None:
    """The workload selector, None if there is none."""
    return labels_of(spec.workload_selector.labels) if spec.workload_selector else None


def exported_to(ns: str, words: Iterable[str]) -> tuple[str, ...]:
    """`exportTo` resolved: `.` is the namespace, `*` or nothing is everybody, `~` is nobody (an empty result). Sorted."""
    given = set(words)
    if not given or "*" in given:
        return ("*",)
    return tuple(sorted({ns if word == "." else word for word in given - {"~"}}))


@query
def written_endpoints(db: Database, entry: ObjectKey, host: str, port_number: int) -> tuple[Endpoint, ...]:
    """The endpoints a ServiceEntry itself gives for a port of one of its hosts; not those its selector selects.

    DNS without endpoints resolves the host itself; NONE has none.
    """
    found = objects(db, entry)
    spec: ServiceEntry | None = found.spec if found else None
    port = next((one for one in spec.ports if one.number == port_number), None) if spec else None
    if spec is None or port is None or spec.resolution == "NONE":
        return ()
    if not spec.endpoints and spec.workload_selector is None and spec.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        return (bare_endpoint(host, port.target_port or port.number),)
    chosen: list[Endpoint] = []
    for index, one in enumerate(spec.endpoints):
        name = WorkloadKey(entry.cluster, entry.namespace, f"{entry.name}-{index}")
        workload = workload_of(name, one, labels_of(one.labels), Origin(entry, f"spec.endpoints[{index}]"))
        chosen.append(endpoint_at(workload, one.address or host, target_number(workload, port, one), one.weight or 1))
    return tuple(chosen)


@query
def entry_port(db: Database, entry: ObjectKey, port_number: int) -> tuple[EntryPort, Labels] | None:
    """A port of a ServiceEntry that selects workloads, with its selector; None if it has no such port or selector."""
    found = objects(db, entry)
    spec: ServiceEntry | None = found.spec if found else None
    if spec is None or spec.workload_selector is None or spec.resolution == "NONE":
        return None
    port = next((one for one in spec.ports if one.number == port_number), None)
    return (port, labels_of(spec.workload_selector.labels)) if port else None


def target_number(workload: Workload, port: EntryPort, entry: WorkloadEntry | None = None) -> int:
    """The workload's port: a machine's own port of that name, then targetPort, then the service's number (Istio)."""
    named = (entry.ports or {}).get(port.name) if entry else None
    if named is None and workload.origin.object.kind == "WorkloadEntry":
        named = next((one.number for one in workload.ports if one.name == port.name), None)
    return named or port.target_port or port.number


@gate
def unaddressed_hosts(db: Database, cluster: str, ns: str) -> tuple[str, ...]:
    """Hosts of a namespace that need an address of the mesh's own, sorted.

    None for resolution NONE, wildcards, entries that opt out, and hosts of which any entry has addresses (Istio).
    """
    needy: set[str] = set()
    addressed: set[str] = set()
    for key in by_namespace(db, (cluster, KIND, ns)):
        found = objects(db, key)
        if found is None or key.group != GROUP:
            continue
        spec: ServiceEntry = found.spec
        words = {**dict(found.annotations), **dict(found.labels)}
        hosts = {host.lower() for host in spec.hosts if not host.startswith("*")}
        if spec.addresses:
            addressed |= hosts
        elif spec.resolution != "NONE" and words.get(AUTO_ALLOCATE, "").lower() != "false":
            needy |= hosts
    return tuple(sorted(needy - addressed))


@gate
def allocations(db: Database, cluster: str) -> dict[tuple[str, str], str]:
    """Every allocated address of a cluster by (namespace, host)."""
    spaces = sorted({key.namespace for key in by_kind(db, (cluster, KIND))})
    wanted = [(ns, host) for ns in spaces for host in unaddressed_hosts(db, cluster, ns)]
    return assigned(wanted, settings(db).auto_allocate_cidr)


@query
def allocated_in(db: Database, cluster: str, ns: str) -> dict[str, str]:
    """Allocated addresses of one namespace by host: where a change of another namespace's stops."""
    everything = allocations(db, cluster)
    return {host: everything[ns, host] for host in unaddressed_hosts(db, cluster, ns) if (ns, host) in everything}


@query
def allocated_address(db: Database, key: ServiceKey) -> str:
    """The address allocated to a host of a namespace; empty if it needs none, or the range is full."""
    return allocated_in(db, key.cluster, key.namespace).get(key.host, "")
