"""Words for kinds on the command line: `vs`, `virtualservice`, `virtualservices.networking.istio.io` are one kind.

Pure. The kinds are those the dialects read; short names are kubectl's and Istio's.
"""

from typing import NamedTuple

from tulle.dialects.reading import KINDS_READ
from tulle.model.keys import ObjectKey

_SHORT = {
    "vs": "VirtualService",
    "dr": "DestinationRule",
    "gw": "Gateway",
    "se": "ServiceEntry",
    "we": "WorkloadEntry",
    "wg": "WorkloadGroup",
    "pa": "PeerAuthentication",
    "ra": "RequestAuthentication",
    "ap": "AuthorizationPolicy",
    "svc": "Service",
    "po": "Pod",
    "deploy": "Deployment",
    "rs": "ReplicaSet",
    "sts": "StatefulSet",
    "sa": "ServiceAccount",
    "cm": "ConfigMap",
    "ns": "Namespace",
}
_CLUSTER_SCOPED = frozenset(("Namespace", "GatewayClass"))


class Kind(NamedTuple):
    """A kind that people may name."""

    group: str
    kind: str

    @property
    def word(self) -> str:
        """`virtualservice.networking.istio.io`, `service`: kubectl's first part of a name."""
        return f"{self.kind.lower()}.{self.group}".rstrip(".")

    @property
    def is_namespaced(self) -> bool:
        """Whether names are unique within a namespace only."""
        return self.kind not in _CLUSTER_SCOPED


def kind_named(word: str) -> Kind | None:
    """The kind a word means, or None."""
    lowered = word.lower()
    bare, _, group = lowered.partition(".")
    kind = _SHORT.get(bare, "").lower() or bare
    for found_group, found in KINDS_READ:
        is_it = kind in (found.lower(), plural(found))
        if is_it and (not group or group == found_group or found_group.startswith(f"{group}.")):
            return Kind(found_group, found)
    return None


def plural(kind: str) -> str:
    """`virtualservices`, `serviceentries`, as in URLs."""
    lowered = kind.lower()
    if lowered.endswith("y"):
        return f"{lowered[:-1]}ies"
    return f"{lowered}es" if lowered.endswith(("s", "x")) else f"{lowered}s"


def words() -> tuple[str, ...]:
    """Every short and long word, for completion and for help."""
    return (*sorted(_SHORT), *sorted({kind.lower() for _, kind in KINDS_READ}))


def slashed(key: ObjectKey) -> str:
    """`virtualservice.networking.istio.io/reviews`, as kubectl prints what it changed."""
    return f"{Kind(key.group, key.kind).word}/{key.name}"
