"""WorkloadEntries, and the inline endpoints of ServiceEntries that look the same, as workloads of the mesh.

Knows no service. Source: Istio API reference, networking/v1 WorkloadEntry; metadata labels win over `spec.labels`, and a
service account means a sidecar unless `security.istio.io/tlsMode` says otherwise, as in Istio's registry.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from tulle.dialects.canonical import canonical_revision, canonical_service, locality
from tulle.dialects.inputs import by_kind, by_namespace, objects
from tulle.dialects.istio.schema_services import WorkloadEntry
from tulle.engine import Database, query
from tulle.model.intent import Workload, WorkloadPort
from tulle.model.keys import Labels, ObjectKey, WorkloadKey, labels_of
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

GROUP: Final = "networking.istio.io"
KIND: Final = "WorkloadEntry"
EVERYWHERE: Final = ""
TLS_MODE: Final = "security.istio.io/tlsMode"


def entry_labels(spec: WorkloadEntry, labels: Labels) -> Labels:
    """What selectors see: `spec.labels` under the object's own."""
    return labels_of({**(spec.labels or {}), **dict(labels)})


def _label_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str, str, str]]:
    if key.kind == KIND and key.group == GROUP:
        for name, text in entry_labels(value.spec, value.labels):
            yield key.cluster, key.namespace, name, text
            yield key.cluster, EVERYWHERE, name, text


entries_by_label = objects.index("entries_by_label", _label_buckets)
"""(cluster, namespace or EVERYWHERE, label, value) -> keys of WorkloadEntries."""


@query
def entries_selected(db: Database, cluster: str, ns: str, selector: Labels) -> tuple[ObjectKey, ...]:
    """Keys of the WorkloadEntries of a namespace (or EVERYWHERE) with these labels, sorted; reads none of them."""
    if not selector:
        everything = by_kind(db, (cluster, KIND)) if ns == EVERYWHERE else by_namespace(db, (cluster, KIND, ns))
        return tuple(key for key in everything if key.group == GROUP)
    first, *others = (entries_by_label(db, (cluster, ns, name, text)) for name, text in selector)
    for other in others:
        among = set(other)
        first = tuple(key for key in first if key in among)
    return first


@query
def entry_workload(db: Database, key: ObjectKey) -> Workload | None:
    """The workload a WorkloadEntry is; None if there is no such object."""
    found = objects(db, key)
    if found is None:
        return None
    place = WorkloadKey(key.cluster, key.namespace, key.name)
    return workload_of(place, found.spec, entry_labels(found.spec, found.labels), Origin(key))


@query
def entry_weight(db: Database, key: ObjectKey) -> int:
    """Weight of a WorkloadEntry among its peers, at least 1."""
    found = objects(db, key)
    spec: WorkloadEntry | None = found.spec if found else None
    return (spec.weight if spec else 0) or 1


class _Said(NamedTuple):
    tls_mode: str | None
    service: str
    revision: str
    locality: str


@lru_cache(maxsize=4_096)
def _said_by(labels: Labels) -> _Said:
    """The same for all endpoints of one version of a service."""
    by_name = dict(labels)
    return _Said(by_name.get(TLS_MODE), canonical_service(by_name, ""), canonical_revision(by_name), locality(by_name))


def workload_of(key: WorkloadKey, spec: WorkloadEntry, labels: Labels, origin: Origin) -> Workload:
    """A WorkloadEntry read as a workload; it is ready as long as it exists."""
    said = _said_by(labels)
    return Workload(
        key=key,
        address=spec.address,
        labels=labels,
        service_account=spec.service_account,
        has_sidecar=bool(spec.service_account) if said.tls_mode is None else said.tls_mode == "istio",
        is_ready=True,
        is_gateway=False,
        ports=tuple(WorkloadPort(name, number) for name, number in sorted((spec.ports or {}).items())),
        owner=key.name,
        canonical_service=said.service or key.name,
        canonical_revision=said.revision,
        origin=origin,
        locality=spec.locality or said.locality,
        network=spec.network,
    )


def workload_entry_problems(spec: WorkloadEntry, origin: Origin) -> tuple[Problem, ...]:
    """TUL0330: a WorkloadEntry without an address. `origin` is that of the spec."""
    return () if spec.address else (problem("TUL0330", origin.at("address")),)
