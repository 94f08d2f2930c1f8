"""Whether a workload's sidecar holds everything it may call or what it has called: the nearest annotation, or the mesh.

Knows no view and no proxy: what on demand means is `compile`'s and `serve`'s.
"""

from typing import Final

from tulle.dialects.inputs import objects, settings
from tulle.dialects.kubernetes.namespace_labels import namespace_key
from tulle.dialects.kubernetes.pods import pod_key
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey, WorkloadKey

DISCOVERY: Final = "tulle.dev/discovery"
"""Annotation of a pod template or a namespace: `full` or `on-demand`."""
ON_DEMAND: Final = "on-demand"
_WORDS: Final = ("full", ON_DEMAND)


@query
def is_on_demand(db: Database, key: WorkloadKey) -> bool:
    """The pod's annotation, else its namespace's, else the mesh's setting; other words count as unsaid."""
    return (_said(db, pod_key(key)) or on_demand_in(db, key.cluster, key.namespace)) == ON_DEMAND


@query
def on_demand_in(db: Database, cluster: str, namespace: str) -> str:
    """What workloads of a namespace get that say nothing themselves."""
    return _said(db, namespace_key(cluster, namespace)) or settings(db).discovery


@query
def _said(db: Database, key: ObjectKey) -> str:
    found = objects(db, key)
    word = dict(found.annotations).get(DISCOVERY, "").lower() if found else ""
    return word if word in _WORDS else ""
