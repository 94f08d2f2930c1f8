"""The hooks a policy kind may have, and the fragments they return.

A kind returns fragments; the compiler places them. Nobody changes another's message. Knows no service and no route.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message
from msgspec import Struct

from tulle.model.intent import Target
from tulle.model.objects import MeshSettings

ClusterOf = Callable[[Target], str]
"""The name of the cluster of a target."""

NOTHING: Mapping[str, Any] = {}


class RouteFragment(Struct, frozen=True):
    """What a policy adds to a route. Keys are field names of the Envoy message; two kinds never set the same field."""

    route: Mapping[str, Any] = NOTHING
    """Fields of `envoy.config.route.v3.Route` (header operations: lists are concatenated in KINDS order)."""
    action: Mapping[str, Any] = NOTHING
    """Fields of `envoy.config.route.v3.RouteAction`; ignored where the route does not forward."""
    safe_action: Mapping[str, Message] = NOTHING
    """The same for requests that may be repeated (`intent.SAFE_METHODS`), in place of `action`'s fields of the same names."""
    filters: Mapping[str, Message] = NOTHING
    """Per-route configuration by HTTP filter name; enables a filter that is disabled by default."""


class ClusterFragment(Struct, frozen=True):
    """What a policy adds to a cluster."""

    cluster: Mapping[str, Any] = NOTHING
    """Fields of `envoy.config.cluster.v3.Cluster`."""
    http: Mapping[str, Any] = NOTHING
    """Fields of `HttpProtocolOptions.common_http_protocol_options`."""


class Kind(Struct, frozen=True):
    """A policy kind: its spec and the hooks it has. Its place in `KINDS` is its place in the filter chain."""

    name: str
    spec: type
    http_filters: Callable[[], Sequence[tuple[str, Message]]] | None = None
    """(filter name, default typed config): put into outbound and gateway HTTP chains, disabled until a route enables them."""
    on_route: Callable[[Any, ClusterOf], RouteFragment] | None = None
    """One spec of an outbound or gateway HTTP rule. Specs that name a target ask for its cluster."""
    default: Callable[[MeshSettings], Any] | None = None
    """The spec of forwarding routes that name none of this kind; None: none."""
    on_target: Callable[[Any], Mapping[str, Any]] | None = None
    """Fields of `WeightedCluster.ClusterWeight` for one target of a rule."""
    on_cluster: Callable[[Any], ClusterFragment] | None = None
    """One spec of a destination or subset."""
    inbound_http_filters: Callable[[], Sequence[tuple[str, Message]]] | None = None
    """As `http_filters`, for inbound HTTP chains."""
    on_inbound_route: Callable[[Sequence[Any]], RouteFragment] | None = None
    """All specs of the kind that apply to a workload port: enabled on its inbound route, so that an edit drains nothing."""
    needs_http: Callable[[Any], bool] | None = None
    """Whether one spec in force at a workload's port cannot be obeyed without parsing HTTP; None: never."""
    inbound_network_filters: Callable[[Sequence[Any]], Sequence[tuple[str, Message]]] | None = None
    """All specs of the kind that apply to a workload port that speaks TCP: network filters before the proxy."""
