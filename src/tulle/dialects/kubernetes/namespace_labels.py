"""Namespaces and what their labels say. Knows no workload and no service."""

from typing import Final

from tulle.dialects.inputs import by_kind, objects
from tulle.engine import Database, gate, query
from tulle.model.keys import Labels, ObjectKey

_INHABITANTS: Final = (
    "Service",
    "ServiceEntry",
    "WorkloadEntry",
    "VirtualService",
    "DestinationRule",
    "Gateway",
    "PeerAuthentication",
    "AuthorizationPolicy",
    "ListenerSet",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
)


def namespace_key(cluster: str, name: str) -> ObjectKey:
    """The key of a Namespace object."""
    return ObjectKey(cluster, "", "Namespace", "", name)


@gate
def namespaces(db: Database, cluster: str) -> tuple[str, ...]:
    """Names of the namespaces that exist or are used by services or mesh configuration, sorted.

    A namespace without an object of its own is one without labels: manifests often leave it out.
    """
    names = {key.name for key in by_kind(db, (cluster, "Namespace"))}
    for kind in _INHABITANTS:
        names.update(key.namespace for key in by_kind(db, (cluster, kind)))
    return tuple(sorted(names))


@query
def namespace(db: Database, cluster: str, name: str) -> Labels:
    """Labels of a namespace; none if it has no object."""
    found = objects(db, namespace_key(cluster, name))
    return found.labels if found else ()
