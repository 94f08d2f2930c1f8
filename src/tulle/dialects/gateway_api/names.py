"""Names and sets of names of the Gateway API: classes, kinds of routes, hostnames, label selectors. Pure text and labels."""

from typing import Final

from tulle.dialects.gateway_api.schema import GROUP, LabelSelector
from tulle.model.keys import Labels, ObjectKey

CONTROLLER: Final = "tulle.dev/gateway-controller"
CLASS: Final = "tulle"
NAME_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
"""On every pod and object of a Gateway."""
ANY_HOST: Final = "*"
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
ROUTE_KINDS: Final = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
SUPPORTED: Final = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
}
"""Protocols of listeners, and the kinds of routes each takes."""


def gateway_key(cluster: str, namespace: str, name: str) -> ObjectKey:
    """The key of a Gateway."""
    return ObjectKey(cluster, GROUP, "Gateway", namespace, name)


def binding_of(gateway: ObjectKey, holder: ObjectKey, listener: str) -> str:
    """How routes name a listener: of the Gateway itself, or of a ListenerSet (the holder)."""
    if holder == gateway:
        return f"{gateway.namespace}/{gateway.name}/{listener}"
    return f"{gateway.namespace}/{gateway.name}/ListenerSet/{holder.namespace}/{holder.name}/{listener}"


def host_of(hostname: str) -> str:
    """A hostname as hosts are written here: nothing means any."""
    return hostname.lower() or ANY_HOST


def selects_labels(selector: LabelSelector | None, namespace: str, labels: Labels) -> bool:
    """Whether a namespace's labels satisfy a selector. Every namespace has its name as a label (Kubernetes sets it)."""
    if selector is None:
        return False
    found = {_NAMESPACE_NAME: namespace, **dict(labels)}
    if any(found.get(name) != value for name, value in selector.match_labels.items()):
        return False
    for one in selector.match_expressions:
        has = one.key in found
        holds = {
            "In": has and found.get(one.key) in one.values,
            "NotIn": not has or found[one.key] not in one.values,
            "Exists": has,
            "DoesNotExist": not has,
        }[one.operator]
        if not holds:
            return False
    return True
