"""Whether a workload's sidecar holds everything it may call or what it has called: the nearest annotation, or the mesh.

Knows no view and no proxy: what on demand means is `compile`'s and `serve`'s.
"""

from typing import Final

from tulle.dialects.inputs import objects
from tulle.dialects.kubernetes.namespace_labels import namespace_key
from tulle.dialects.kubernetes.pods import pod_key
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey, WorkloadKey

DISCOVERY: Final = "tulle.dev/discovery"
"""Annotation of a pod template or a namespace: `full` or `on-demand`."""
FULL: Final = "full"
ON_DEMAND: Final = "on-demand"
_WORDS: Final = (FULL, ON_DEMAND)


@query
def said_of(db: Database, key: WorkloadKey) -> str:
    """What the pod's annotation says, else its namespace's; empty: neither says anything that is known."""
    return _said(db, pod_key(key)) or said_in(db, key.cluster, key.namespace)


def said_in(db: Database, cluster: str, namespace: str) -> str:
    """What a namespace's annotation says; empty: nothing that is known."""
    return _said(db, namespace_key(cluster, namespace))


@query
def _said(db: Database, key: ObjectKey) -> str:
    found = objects(db, key)
    word = dict(found.annotations).get(DISCOVERY, "").lower() if found else ""
    return word if word in _WORDS else ""
