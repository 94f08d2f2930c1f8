"""Names of things. A name always has a cluster, so that meshes of several clusters need no second kind of name."""

from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
"""Sorted (key, value) pairs: hashable, comparable, printable."""


class ObjectKey(NamedTuple):
    """One Kubernetes-shaped object, whatever its API version: versions of a kind are one object."""

    cluster: str
    group: str
    """API group; empty for the core group."""
    kind: str
    namespace: str
    """Empty for cluster-scoped kinds."""
    name: str

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind}/{place}{self.name}"


class ServiceKey(NamedTuple):
    """One service host as one namespace declares it (a Kubernetes Service or one host of a ServiceEntry)."""

    cluster: str
    namespace: str
    host: str
    """Fully qualified, lower case: `reviews.bookinfo.svc.cluster.local`, `paypal.apis.com`, `*.example.com`."""


class WorkloadKey(NamedTuple):
    """One running instance: a pod, a WorkloadEntry, or an inline endpoint of a ServiceEntry."""

    cluster: str
    namespace: str
    name: str


def labels_of(mapping: dict[str, str] | None) -> Labels:
    """Labels of a mapping; None means no labels."""
    return tuple(sorted(mapping.items())) if mapping else ()


def selects(selector: Labels, labels: Labels) -> bool:
    """Whether every pair of the selector is among the labels. An empty selector selects everything."""
    return set(selector) <= set(labels)


def covers(pattern: str, host: str) -> bool:
    """Whether `*.example.com` (or `*`, `*-v1.example.com`, or the same name) covers a host or a narrower wildcard (Istio)."""
    return host == pattern or (pattern.startswith("*") and host.endswith(pattern[1:]) and host != pattern[1:])
