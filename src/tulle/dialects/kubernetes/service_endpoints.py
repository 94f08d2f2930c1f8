"""The endpoints of Kubernetes Services: from EndpointSlices where there are any, otherwise from the selected pods.

Both give equal results for the same world, so that a laptop (pods only) and a cluster (slices) get equal bytes. An
endpoint that must not get traffic is not listed. Knows no WorkloadEntry.
"""

from collections.abc import Iterable
from typing import Final

from tulle.dialects.inputs import objects
from tulle.dialects.kubernetes import schema
from tulle.dialects.kubernetes.pods import is_over, is_ready, pod_key, pod_workload, pods_selected
from tulle.dialects.kubernetes.services import core_service
from tulle.dialects.reachable import bare_endpoint, endpoint_at, in_order
from tulle.engine import Database, query
from tulle.model.intent import Endpoint, ServicePort, Workload
from tulle.model.keys import ObjectKey, ServiceKey, WorkloadKey
from tulle.model.objects import Object

SERVICE_NAME: Final = "kubernetes.io/service-name"


def _service_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str, str]]:
    if key.kind == "EndpointSlice":
        for name, text in value.labels:
            if name == SERVICE_NAME:
                yield key.cluster, key.namespace, text


slices_by_service = objects.index("slices_by_service", _service_buckets)
"""(cluster, namespace, Service name) -> keys of EndpointSlices."""


def _address_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str, str]]:
    if key.kind == "Pod" and not key.group and value.spec.status.pod_ip:
        yield key.cluster, key.namespace, value.spec.status.pod_ip


pods_by_address = objects.index("pods_by_address", _address_buckets)
"""(cluster, namespace, address) -> keys of Pods; several where they use their node's, or where old ones are over."""


@query
def core_endpoints(db: Database, key: ServiceKey, port_number: int) -> tuple[Endpoint, ...]:
    """Endpoints of one port of a Kubernetes Service, sorted by address; none if there is no such Service or port.

    Cost: one workload per endpoint. A pod's change reruns this for the Services that select it, and no other.
    """
    service = core_service(db, key)
    port = next((one for one in service.ports if one.number == port_number), None) if service else None
    if service is None or port is None:
        return ()
    if service.external_name:
        return (bare_endpoint(service.external_name, port_number),)
    owner = service.origin.object
    slices = slices_by_service(db, (owner.cluster, owner.namespace, owner.name))
    if slices:
        return in_order([one for piece in slices for one in slice_endpoints(db, piece, port.name)])
    if service.selector is None:
        return ()
    chosen: list[Endpoint] = []
    publishes_all = publishes_not_ready(db, owner)
    for pod in pods_selected(db, owner.cluster, owner.namespace, service.selector):
        workload = listed_pod(db, pod, publishes_all)
        number = None if workload is None else target_number(workload, port)
        if workload is not None and number is not None:
            chosen.append(endpoint_at(workload, workload.address, number))
    return in_order(chosen)


@query
def publishes_not_ready(db: Database, owner: ObjectKey) -> bool:
    """Whether the Service lists pods that are not ready."""
    found = objects(db, owner)
    spec: schema.Service | None = found.spec if found else None
    return spec is not None and spec.publish_not_ready_addresses


@query
def listed_pod(db: Database, key: ObjectKey, publishes_all: bool) -> Workload | None:
    """The pod's workload if a Service may list it: it has an address, is not finished, and is ready if that counts.

    A terminating pod counts as not ready, so publishNotReadyAddresses lists it (Kubernetes).
    """
    found = objects(db, key)
    if found is None:
        return None
    pod: schema.Pod = found.spec
    is_listed = not is_over(pod) and (publishes_all or is_ready(pod))
    return pod_workload(db, key) if is_listed and pod.status.pod_ip else None


def target_number(workload: Workload, port: ServicePort) -> int | None:
    """The workload's port behind a service port; None if it has no container port of that name."""
    if isinstance(port.target, int):
        return port.target
    return next((one.number for one in workload.ports if one.name == port.target), None)


@query
def slice_endpoints(db: Database, key: ObjectKey, port_name: str) -> tuple[Endpoint, ...]:
    """The endpoints of one slice for one port; a slice's condition unknown means ready (Kubernetes).

    An endpoint that refers to a pod we have not seen yet is left out, as Istio does: sent without mTLS it would fail. One that
    refers to none is the pod of its namespace at that address, if there is one (Istio): people write addresses alone.
    """
    found = objects(db, key)
    if found is None:
        return ()
    piece: schema.EndpointSlice = found.spec
    port = next((one for one in piece.ports or () if (one.name or "") == port_name), None)
    if port is None or port.port is None or piece.address_type == "FQDN":
        return ()
    chosen: list[Endpoint] = []
    for one in piece.endpoints or ():
        if one.conditions.ready is False or not one.addresses:
            continue
        reference = one.target_ref
        if reference is None or reference.kind != "Pod":
            there = _pod_at(db, key, one.addresses[0])
            found_at = endpoint_at(there, one.addresses[0], port.port) if there else None
            chosen.append(found_at or bare_endpoint(one.addresses[0], port.port))
            continue
        pod = pod_workload(db, pod_key(WorkloadKey(key.cluster, reference.namespace or key.namespace, reference.name)))
        if pod is not None and is_same_family(one.addresses[0], pod.address):
            chosen.append(endpoint_at(pod, one.addresses[0], port.port))
    return tuple(chosen)


def _pod_at(db: Database, piece: ObjectKey, address: str) -> Workload | None:
    for key in pods_by_address(db, (piece.cluster, piece.namespace, address)):
        found = objects(db, key)
        if found is not None and not is_over(found.spec):
            return pod_workload(db, key)
    return None


def is_same_family(address: str, other: str) -> bool:
    """Both IPv4 or both IPv6. A dual-stack pod is one endpoint, at its first address."""
    return (":" in address) == (":" in other)
