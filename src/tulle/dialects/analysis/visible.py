"""What a client in a namespace finds under a host: the service, the DestinationRules, the VirtualServices.

Indexes by host, so that an edit reruns the analysis of what names that host and nothing else.
"""

from collections.abc import Iterable, Iterator

from tulle.dialects.inputs import objects, settings
from tulle.dialects.istio.destination_rule import destination
from tulle.dialects.istio.virtual_service import route_set
from tulle.dialects.kubernetes.registry import declared, declaring_namespaces
from tulle.engine import Database, query
from tulle.model.intent import Destination, RouteSet, Service
from tulle.model.keys import ObjectKey, ServiceKey
from tulle.model.objects import Object

GROUP = "networking.istio.io"


def _bucket(host: str, namespace: str) -> str:
    """Indexes cannot ask for the cluster's domain, so a short name is kept as `name.namespace.svc.`."""
    host = host.lower().rstrip(".")
    return host if "." in host or host == "*" else f"{host}.{namespace}.svc."


def _hosts(key: ObjectKey, value: Object) -> Iterable[tuple[str, str, str]]:
    if key.group != GROUP:
        return
    if key.kind == "DestinationRule":
        yield key.cluster, key.kind, _bucket(value.spec.host, key.namespace)
    elif key.kind == "VirtualService":
        for host in value.spec.hosts:
            yield key.cluster, key.kind, _bucket(host, key.namespace)


by_host = objects.index("istio_by_host", _hosts)
"""(cluster, kind, host) -> keys of DestinationRules and VirtualServices that name the host exactly."""


def naming(db: Database, cluster: str, kind: str, host: str) -> Iterator[ObjectKey]:
    """Objects of a kind that name a full host, in either spelling."""
    yield from by_host(db, (cluster, kind, host))
    short = host.removesuffix(settings(db).cluster_domain)
    if short != host:
        yield from by_host(db, (cluster, kind, short))


def is_seen(exported_to: Iterable[str], namespace: str) -> bool:
    """Whether something exported to these namespaces is seen in one."""
    return any(place in ("*", namespace) for place in exported_to)


def wider(host: str) -> Iterator[str]:
    """The host, then the wildcards that cover it, narrow ones first."""
    yield host
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"


@query
def service_seen(db: Database, cluster: str, host: str, namespace: str) -> Service | None:
    """The service of a full host that the namespace sees; its own first, then by name of the declaring namespace."""
    for name in wider(host):
        places = declaring_namespaces(db, cluster, name)
        for place in sorted(places, key=lambda one: (one != namespace, one)):
            found = declared(db, ServiceKey(cluster, place, name))
            if found is not None and (place == namespace or is_seen(found.exported_to, namespace)):
                return found
    return None


def destinations_seen(db: Database, cluster: str, host: str, namespace: str) -> Iterator[Destination]:
    """DestinationRules of exactly this host that the namespace sees."""
    for key in naming(db, cluster, "DestinationRule", host):
        found = destination(db, key)
        if found is not None and (key.namespace == namespace or is_seen(found.exported_to, namespace)):
            yield found


def route_sets_naming(db: Database, cluster: str, host: str) -> Iterator[RouteSet]:
    """VirtualServices of exactly this host, of every namespace."""
    for key in naming(db, cluster, "VirtualService", host):
        found = route_set(db, key)
        if found is not None:
            yield found
