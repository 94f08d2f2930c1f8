"""Names that metrics give a workload, and where it is, read from its labels. The same for pods and WorkloadEntries."""

from collections.abc import Iterable, Mapping

_SERVICE = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_REVISION = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_PLACE = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


def canonical_service(labels: Mapping[str, str], owner: str) -> str:
    """Istio's canonical name: its label, then the usual ones, then the workload's own name."""
    return _first(labels, _SERVICE) or owner


def canonical_revision(labels: Mapping[str, str]) -> str:
    """Istio's canonical revision: its label, then the usual ones, then `latest`."""
    return _first(labels, _REVISION) or "latest"


def locality(labels: Mapping[str, str]) -> str:
    """`region/zone/subzone` from `istio-locality` (dots for slashes) or the topology labels; empty if unknown."""
    if declared := labels.get("istio-locality"):
        return declared if "/" in declared else declared.replace(".", "/")
    return "/".join(labels.get(name, "") for name in _PLACE).rstrip("/")


def _first(labels: Mapping[str, str], names: Iterable[str]) -> str:
    for name in names:
        if found := labels.get(name):
            return found
    return ""
