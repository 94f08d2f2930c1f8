"""Which Gateways are ours: by their class, and by who controls it."""

from tulle.dialects.gateway_api import schema
from tulle.dialects.gateway_api.names import CLASS, CONTROLLER
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.inputs import by_kind, objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey


@query
def is_our_class(db: Database, cluster: str, name: str) -> bool:
    """Whether the class names our controller. Without an object of that name only `tulle` is ours (manifests without classes)."""
    found = objects(db, ObjectKey(cluster, GROUP, "GatewayClass", "", name))
    if found is None:
        return name == CLASS
    spec: schema.GatewayClass = found.spec
    return spec.controller_name == CONTROLLER


@query
def our_gateway(db: Database, key: ObjectKey) -> schema.Gateway | None:
    """A Gateway as written, if there is one and it is ours."""
    found = objects(db, key) if key.group == GROUP and key.kind == "Gateway" else None
    if found is None:
        return None
    spec: schema.Gateway = found.spec
    return spec if is_our_class(db, key.cluster, spec.gateway_class_name) else None


@query
def our_gateways(db: Database, cluster: str) -> tuple[ObjectKey, ...]:
    """Keys of the Gateways that are ours. Fan-in: they are few."""
    keys = (key for key in by_kind(db, (cluster, "Gateway")) if key.group == GROUP)
    return tuple(key for key in keys if our_gateway(db, key) is not None)
