"""The Gateway API's kinds and their served versions: which schema reads each, and which check judges it."""

from typing import Final

from msgspec.structs import replace

from tulle.dialects.gateway_api import schema, schema_routes
from tulle.dialects.gateway_api.checks import (
    grpc_route_problems,
    http_route_problems,
    listener_problems,
    listener_set_problems,
)
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.kinds import KindRead, Scope

_KINDS: Final = (
    KindRead(GROUP, "GatewayClass", ("v1", "v1beta1"), schema.GatewayClass, scope=Scope.CLUSTER),
    KindRead(GROUP, "Gateway", ("v1", "v1beta1"), schema.Gateway, check=listener_problems),
    KindRead(GROUP, "ListenerSet", ("v1",), schema.ListenerSet, check=listener_set_problems),
    KindRead(GROUP, "HTTPRoute", ("v1", "v1beta1"), schema_routes.HTTPRoute, check=http_route_problems),
    KindRead(GROUP, "GRPCRoute", ("v1", "v1alpha2"), schema_routes.GRPCRoute, check=grpc_route_problems),
    KindRead(GROUP, "TLSRoute", ("v1", "v1alpha3", "v1alpha2"), schema_routes.TLSRoute),
    KindRead(GROUP, "TCPRoute", ("v1", "v1alpha2"), schema_routes.TCPRoute),
    KindRead(GROUP, "UDPRoute", ("v1", "v1alpha2"), schema_routes.UDPRoute),
    KindRead(GROUP, "ReferenceGrant", ("v1", "v1beta1"), schema.ReferenceGrant),
    KindRead(GROUP, "BackendTLSPolicy", ("v1", "v1alpha3"), schema.BackendTLSPolicy),
)
KINDS: Final[tuple[KindRead, ...]] = tuple(replace(kind, counts_generation=True) for kind in _KINDS)
