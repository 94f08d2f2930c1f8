"""Services, workloads and endpoints of the mesh, whichever dialect declares them: what everybody else asks.

Puts Kubernetes Services beside hosts of ServiceEntries, and pods beside WorkloadEntries. A Kubernetes Service wins over a
ServiceEntry host of the same namespace and name. Knows no route and no policy.
"""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from tulle.dialects.inputs import objects
from tulle.dialects.istio import service_entry, workload_entry
from tulle.dialects.istio.service_entry import allocations as entry_allocations
from tulle.dialects.kubernetes import service_endpoints as core
from tulle.dialects.kubernetes.pods import pod_key, pod_workload, pods_selected
from tulle.dialects.kubernetes.schema import SecretDigest
from tulle.dialects.kubernetes.services import (
    cluster_domain,
    core_service,
    core_service_hosts,
    service_host,
    service_named,
)
from tulle.dialects.reachable import endpoint_at, in_order
from tulle.engine import Database, gate, query
from tulle.model.intent import Endpoint, Resolution, Service, Workload
from tulle.model.keys import Labels, ObjectKey, ServiceKey, WorkloadKey
from tulle.model.objects import Object

_LONGEST_ALIAS_CHAIN: Final = 8


def _external_name_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str]]:
    if key.kind == "Service" and key.group == "" and value.spec.type == "ExternalName":
        yield key.cluster, value.spec.external_name.lower().rstrip(".")


services_by_external_name = objects.index("services_by_external_name", _external_name_buckets)
"""(cluster, external name) -> keys of ExternalName Services."""


@query
def declared(db: Database, key: ServiceKey) -> Service | None:
    """The service as its objects declare it: nothing of aliases."""
    return core_service(db, key) or service_entry.entry_service(db, key)


@query
def declaring_namespaces(db: Database, cluster: str, host: str) -> tuple[str, ...]:
    """Namespaces that declare a service of the host, sorted."""
    found = {key.namespace for key in service_entry.entries_by_host(db, (cluster, host))}
    named = service_named(cluster, host, cluster_domain(db))
    if named and core_service(db, ServiceKey(cluster, named.namespace, host)):
        found.add(named.namespace)
    return tuple(sorted(found))


@query
def alias_target(db: Database, key: ServiceKey) -> str:
    """The mesh host an ExternalName Service stands for in the end; empty if it is none, or points out of the mesh.

    Chains are followed for 8 steps; a longer one, or a circle, points nowhere.
    """
    host, at = key.host, declared(db, key)
    for _ in range(_LONGEST_ALIAS_CHAIN):
        if at is None or not at.external_name:
            return host if at is not None and host != key.host else ""
        spaces = declaring_namespaces(db, key.cluster, at.external_name)
        if not spaces:
            return host if host != key.host else ""
        host = at.external_name
        at = declared(db, ServiceKey(key.cluster, spaces[0], host))
    return ""


@query
def aliases(db: Database, cluster: str, host: str) -> tuple[str, ...]:
    """Full names of the ExternalName Services that stand for a host of the mesh, sorted."""
    domain = cluster_domain(db)
    found: set[str] = set()
    fresh = [host]
    for _ in range(_LONGEST_ALIAS_CHAIN):
        keys = [key for name in fresh for key in services_by_external_name(db, (cluster, name))]
        fresh = [name for key in keys if (name := service_host(key.namespace, key.name, domain)) not in found]
        found.update(fresh)
        if not fresh:
            break
    return tuple(sorted(found - {host}))


@gate
def service(db: Database, key: ServiceKey) -> Service | None:
    """The service of that key; None if there is none, or if it is an alias (see `alias_target`)."""
    found = declared(db, key)
    if found is None or (found.external_name and alias_target(db, key)):
        return None
    names = aliases(db, key.cluster, key.host)
    return replace(found, aliases=names) if names else found


@query
def services_in(db: Database, cluster: str, ns: str) -> tuple[Service, ...]:
    """Services that a namespace declares, sorted by host. Aliases are not services but `aliases` of their target."""
    hosts = {*core_service_hosts(db, cluster, ns), *service_entry.entry_hosts(db, cluster, ns)}
    found = (service(db, ServiceKey(cluster, ns, host)) for host in sorted(hosts))
    return tuple(one for one in found if one is not None)


@query
def workload(db: Database, key: WorkloadKey) -> Workload | None:
    """The pod, or else the WorkloadEntry, of that name."""
    return pod_workload(db, pod_key(key)) or workload_entry.entry_workload(db, _entry_key(key))


@query
def workloads_selected(db: Database, cluster: str, ns: str, selector: Labels) -> tuple[WorkloadKey, ...]:
    """Keys of the workloads of a namespace (or EVERYWHERE) with these labels, ready or not, sorted.

    Reads labels only: a pod that becomes ready, or gets its address, does not rerun what asks this.
    """
    pods = pods_selected(db, cluster, ns, selector)
    entries = workload_entry.entries_selected(db, cluster, ns, selector)
    return tuple(sorted({WorkloadKey(key.cluster, key.namespace, key.name) for key in (*pods, *entries)}))


@query
def workloads_in(db: Database, cluster: str, ns: str) -> tuple[Workload, ...]:
    """Workloads of a namespace, ready or not, sorted by name."""
    found = (workload(db, key) for key in workloads_selected(db, cluster, ns, ()))
    return tuple(one for one in found if one is not None)


@query
def endpoints(db: Database, key: ServiceKey, port_number: int) -> tuple[Endpoint, ...]:
    """Where one port of a service may be reached, sorted by address; only endpoints that may get traffic.

    None for resolution NONE. For DNS an address may be a name. A pod's change reruns this for services that select it.
    """
    found = service(db, key)
    if found is None or found.resolution is Resolution.NONE:
        return ()
    if not found.is_kubernetes:
        return in_order(
            [one for entry in service_entry.entries_of(db, key) for one in _of_entry(db, entry, key, port_number)]
        )
    chosen = list(core.core_endpoints(db, key, port_number))
    port = next((one for one in found.ports if one.number == port_number), None)
    if found.selector and port:
        for entry in workload_entry.entries_selected(db, key.cluster, key.namespace, found.selector):
            machine = workload_entry.entry_workload(db, entry)
            if machine is not None and machine.address:
                named = next((one.number for one in machine.ports if one.name == port.name), None)
                number = named or (port.target if isinstance(port.target, int) else port.number)
                chosen.append(endpoint_at(machine, machine.address, number, workload_entry.entry_weight(db, entry)))
    return in_order(chosen)


def _of_entry(db: Database, entry: ObjectKey, key: ServiceKey, port_number: int) -> Iterable[Endpoint]:
    yield from service_entry.written_endpoints(db, entry, key.host, port_number)
    selecting = service_entry.entry_port(db, entry, port_number)
    if selecting is None:
        return
    port, selector = selecting
    for pod in pods_selected(db, entry.cluster, entry.namespace, selector):
        running = core.listed_pod(db, pod, False)
        if running is not None:
            yield endpoint_at(running, running.address, service_entry.target_number(running, port))
    for one in workload_entry.entries_selected(db, entry.cluster, entry.namespace, selector):
        machine = workload_entry.entry_workload(db, one)
        if machine is not None and machine.address:
            number = service_entry.target_number(machine, port)
            yield endpoint_at(machine, machine.address, number, workload_entry.entry_weight(db, one))


def _entry_key(key: WorkloadKey) -> ObjectKey:
    return ObjectKey(key.cluster, workload_entry.GROUP, workload_entry.KIND, key.namespace, key.name)


@query
def allocated(db: Database, cluster: str) -> dict[tuple[str, str], str]:
    """Addresses the mesh gave to hosts without one, by (namespace, host)."""
    return entry_allocations(db, cluster)


@query
def secret_digest(db: Database, key: ObjectKey) -> SecretDigest | None:
    """What the engine knows of a Secret: type, entry names and a digest; None if there is none. Never its bytes."""
    found = objects(db, key)
    digest: SecretDigest | None = found.spec if found else None
    return digest
