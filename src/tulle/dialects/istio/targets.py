"""A destination of a route with its host made absolute."""

from typing import Any, NamedTuple

from tulle.dialects.istio import schema_virtual_service as written
from tulle.dialects.istio.names import full_host
from tulle.model.intent import Target
from tulle.model.origin import Origin


class Scope(NamedTuple):
    """Where short names are resolved."""

    namespace: str
    domain: str
    """The cluster's."""


def target_of(
    destination: written.Destination, weight: int, scope: Scope, origin: Origin, policies: tuple[Any, ...] = ()
) -> Target:
    """`origin` is that of the route entry, whose weight this is."""
    return Target(
        host=full_host(destination.host, scope.namespace, scope.domain),
        port=destination.port.number if destination.port else None,
        subset=destination.subset,
        weight=weight,
        policies=policies,
        origin=origin,
    )
