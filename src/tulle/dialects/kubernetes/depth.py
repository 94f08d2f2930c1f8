"""The annotation by which a namespace or a pod says how deep sidecars look into its traffic.

Knows no policy and no proxy: what a depth means is the compiler's.
"""

from typing import Final

from tulle.dialects.inputs import objects
from tulle.dialects.kubernetes.namespace_labels import namespace_key
from tulle.engine import Database, query
from tulle.model.intent import Depth
from tulle.model.keys import Labels, ObjectKey
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

DEPTH: Final = "tulle.dev/depth"
_PLACE: Final = "metadata.annotations"
_KNOWN: Final = frozenset(Depth)


def depth_of(annotations: Labels) -> Depth | None:
    """What annotations ask for; None: nothing, or nothing that is known (`depth_problems`)."""
    asked = dict(annotations).get(DEPTH, "")
    return Depth(asked) if asked in _KNOWN else None


@query
def namespace_depth(db: Database, cluster: str, name: str) -> Depth | None:
    """What a namespace asks for its workloads."""
    found = objects(db, namespace_key(cluster, name))
    return depth_of(found.annotations) if found else None


def depth_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """TUL0306: a depth nobody knows; the wider one counts."""
    found = objects(db, key)
    asked = dict(found.annotations).get(DEPTH) if found else None
    if asked is None or asked in _KNOWN:
        return ()
    return (problem("TUL0306", Origin(key, _PLACE), depth=asked),)
