"""Backends of routes: a Service and one of its ports as a target, or the reason of the API why there is none.

The same answer for traffic (what is not there keeps its share, and answers 500) and for status. Knows no kind of route.
"""

from typing import Any

from msgspec import Struct

from tulle.dialects.gateway_api.grants import is_granted
from tulle.dialects.gateway_api.schema_routes import BackendRef, MirrorBackend
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import objects, settings
from tulle.dialects.kubernetes.registry import declared, service
from tulle.dialects.kubernetes.services import service_host
from tulle.engine import Database, query
from tulle.model.intent import PortProtocol, Target
from tulle.model.keys import ObjectKey, ServiceKey
from tulle.model.origin import Origin

SERVICE = ("", "Service")
_ALIAS = ("networking.istio.io", "Hostname")
"""Istio's reference to any host of the mesh by its name."""


class Backend(Struct, frozen=True):
    """What a reference leads to."""

    host: str
    """Empty: to nothing."""
    port: int | None
    missing: Verdict | None = None


@query
def resolved(db: Database, holder: ObjectKey, ref: BackendRef | MirrorBackend) -> Backend:
    """The service and port of a reference in a route. Asks nothing of the service but whether it has the port."""
    if (ref.group, ref.kind) == _ALIAS:
        return Backend(ref.name.lower(), ref.port)
    if (ref.group, ref.kind) != SERVICE:
        return Backend("", None, Verdict("InvalidKind", f"{ref.kind} {ref.name} is no Service"))
    place = ref.namespace or holder.namespace
    target = ObjectKey(holder.cluster, "", "Service", place, ref.name)
    if not is_of_mesh(db, holder) and not is_granted(db, holder, target):
        return Backend("", None, Verdict("RefNotPermitted", f"no ReferenceGrant of {place} allows Service {ref.name}"))
    if ref.port is None:
        return Backend("", None, Verdict("UnsupportedValue", f"the reference to Service {ref.name} needs a port"))
    ports = service_ports(db, holder.cluster, place, ref.name)
    if ports is None:
        return Backend("", None, Verdict("BackendNotFound", f"there is no Service {place}/{ref.name}"))
    if ref.port not in dict(ports):
        return Backend("", None, Verdict("BackendNotFound", f"Service {place}/{ref.name} has no port {ref.port}"))
    return Backend(service_host(place, ref.name, settings(db).cluster_domain), ref.port)


@query
def is_of_mesh(db: Database, holder: ObjectKey) -> bool:
    """Whether a route has Services alone as parents: it exposes nothing, so nobody need grant its references (GEP-1294)."""
    found = objects(db, holder)
    return found is not None and all((ref.group, ref.kind) == SERVICE for ref in found.spec.parent_refs)


@query
def service_ports(db: Database, cluster: str, namespace: str, name: str) -> tuple[tuple[int, PortProtocol], ...] | None:
    """Ports of a Service, None if there is none. Aliases (ExternalName) count as what they stand for."""
    key = ServiceKey(cluster, namespace, service_host(namespace, name, settings(db).cluster_domain))
    found = service(db, key) or declared(db, key)
    return None if found is None else tuple((port.number, port.protocol) for port in found.ports)


def target_of(db: Database, holder: ObjectKey, ref: BackendRef, policies: tuple[Any, ...], origin: Origin) -> Target:
    """A weighted target; one without host is not there."""
    found = resolved(db, holder, ref)
    return Target(found.host, found.port, "", ref.weight, policies if found.host else (), origin)
