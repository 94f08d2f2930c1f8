"""ReferenceGrants: whether a namespace lets objects of another refer to what it has."""

from tulle.dialects.gateway_api.schema import GROUP, ReferenceGrant
from tulle.dialects.inputs import by_namespace, objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey


@query
def is_granted(db: Database, holder: ObjectKey, target: ObjectKey) -> bool:
    """Whether the holder (a route, Gateway or ListenerSet) may refer to an object: its own namespace's, or a granted one."""
    if target.namespace == holder.namespace:
        return True
    return any(
        _allows(found.spec, holder, target)
        for key in by_namespace(db, (holder.cluster, "ReferenceGrant", target.namespace))
        if key.group == GROUP and (found := objects(db, key)) is not None
    )


def _allows(grant: ReferenceGrant, holder: ObjectKey, target: ObjectKey) -> bool:
    asked = (holder.group, holder.kind, holder.namespace)
    if not any((one.group, one.kind, one.namespace) == asked for one in grant.from_):
        return False
    return any(
        (one.group, one.kind) == (target.group, target.kind) and one.name in (None, "", target.name) for one in grant.to
    )
