"""Clusters: how a service's endpoints are found, reached and treated."""

from datetime import timedelta
from functools import cache
from typing import Any

from tulle.compile.envoy import observing, tls, tunnels
from tulle.compile.envoy.values import ADS
from tulle.model.objects import MeshSettings
from tulle.model.plan import BLACK_HOLE, PASSTHROUGH, Cluster, Discovery, MeshTls, ServiceName, Upstream
from tulle.policies import KINDS
from tulle.xds import api
from tulle.xds.names import inbound
from tulle.xds.schema import struct, to_any

INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
INBOUND_SOURCE = "127.0.0.6"
"""Sidecars speak to their own workload from this address, which capture rules let through (Istio)."""

_NO_SERVICE = ServiceName("unknown", "unknown", "unknown")
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT = timedelta(seconds=10)
_DOOR_IDLE = timedelta(seconds=5)
_ALPN = {
    Upstream.HTTP2: ("istio-h2", "istio", "h2"),
    Upstream.HTTP1: ("istio-http/1.1", "istio", "http/1.1"),
    Upstream.SAME: ("istio-http/1.1", "istio", "http/1.1"),
    Upstream.TCP: ("istio",),
}
_RELAYED_AGE_SECONDS = 4
"""Nobody tells the client that a sidecar which relays is leaving, or that its listener changes: connections are renewed before
a drain (5 s) ends, and before most servers close one that rests (5 s and more), so that no request meets either."""
_APPLICATION_ALPN = {
    Upstream.HTTP2: ("h2",),
    Upstream.HTTP1: ("http/1.1",),
    Upstream.SAME: ("http/1.1",),
    Upstream.TCP: (),
}


def cluster(plan: Cluster, settings: MeshSettings) -> "api.Cluster":
    """The message of an outbound cluster. Fragments of policies are merged field by field, in `KINDS` order."""
    fields: dict[str, Any] = {
        "name": plan.name,
        "connect_timeout": _CONNECT,
        "alt_stat_name": plan.name,
        "metadata": _service_metadata(plan.service, plan.mesh_tls),
        **_discovery(plan),
        **_transport(plan, settings),
    }
    http: dict[str, Any] = {}
    for kind in KINDS:
        if kind.on_cluster is None:
            continue
        specs = [policy for policy in plan.policies if isinstance(policy, kind.spec)]
        if not specs and kind.default is not None:
            specs = [kind.default(settings)]
        for policy in specs:
            fragment = kind.on_cluster(policy)
            fields.update(fragment.cluster)
            http.update(fragment.http)
    if plan.discovery is Discovery.ORIGINAL_DST:
        fields["lb_policy"] = "CLUSTER_PROVIDED"  # the client chose the address: nothing to balance
        fields.pop("load_balancing_policy", None)
    if plan.upstream is not Upstream.TCP:
        fields["typed_extension_protocol_options"] = {_HTTP_OPTIONS: _protocol(plan, http, settings)}
    elif plan.mesh_tls is not MeshTls.NEVER and plan.discovery is Discovery.EDS:
        fields["typed_extension_protocol_options"] = {_HTTP_OPTIONS: _as_streams(settings.max_connection_age_seconds)}
    return api.Cluster(**fields)


def passthrough() -> "api.Cluster":
    """Unknown destinations: to the address the client chose, speaking what it spoke."""
    return api.Cluster(
        name=PASSTHROUGH,
        metadata=_service_metadata(_NO_SERVICE, MeshTls.NEVER),
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=_CONNECT,
        typed_extension_protocol_options={
            _HTTP_OPTIONS: to_any(api.HttpProtocolOptions(use_downstream_protocol_config=_downstream()))
        },
    )


def door(name: str, listener: str) -> "api.Cluster":
    """Into a listener of this proxy, with the protocol and the addresses of the client's connection."""
    made = api.Cluster()
    made.CopyFrom(_door(listener))  # there is one for every address that anybody asks for
    made.name = made.load_assignment.cluster_name = name
    return made


@cache
def _door(listener: str) -> "api.Cluster":
    most = api.UInt32Value(value=(1 << 32) - 1)
    limits = api.CircuitBreakers.Thresholds(max_connections=most, max_pending_requests=most, max_requests=most)
    inside = api.Address(envoy_internal_address=api.EnvoyInternalAddress(server_listener_name=listener))
    endpoint = api.LbEndpoint(endpoint=api.Endpoint(address=inside))
    bare = api.TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=to_any(api.RawBuffer()))
    options = api.HttpProtocolOptions(
        use_downstream_protocol_config=_downstream(),
        common_http_protocol_options=api.CoreHttpProtocolOptions(idle_timeout=_DOOR_IDLE),
    )
    return api.Cluster(
        type="STATIC",
        connect_timeout=_CONNECT,
        circuit_breakers=api.CircuitBreakers(thresholds=[limits]),
        load_assignment=api.ClusterLoadAssignment(endpoints=[api.LocalityLbEndpoints(lb_endpoints=[endpoint])]),
        transport_socket=api.TransportSocket(
            name="envoy.transport_sockets.internal_upstream",
            typed_config=to_any(api.InternalUpstreamTransport(transport_socket=bare)),
        ),
        typed_extension_protocol_options={_HTTP_OPTIONS: to_any(options)},
    )


def black_hole() -> "api.Cluster":
    """A cluster without endpoints."""
    metadata = _service_metadata(_NO_SERVICE, MeshTls.NEVER)
    return api.Cluster(name=BLACK_HOLE, type="STATIC", connect_timeout=_CONNECT, metadata=metadata)


def local(port: int | None, upstream: Upstream) -> "api.Cluster":
    """The workload's own port (None: whichever port was called), from the address that capture lets through."""
    name = INBOUND_PASSTHROUGH if port is None else inbound(port)
    if upstream is Upstream.HTTP2:
        name = f"{name}h2"
    options = api.HttpProtocolOptions()
    if upstream is Upstream.HTTP2:
        options.explicit_http_config.http2_protocol_options.CopyFrom(_http2())
    elif upstream is Upstream.SAME:
        options.use_downstream_protocol_config.CopyFrom(_downstream())
    else:
        options.explicit_http_config.http_protocol_options.CopyFrom(api.Http1ProtocolOptions())
    return api.Cluster(
        name=name,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=_CONNECT,
        upstream_bind_config=api.BindConfig(
            source_address=api.SocketAddress(address=INBOUND_SOURCE, port_value=0),
        ),
        typed_extension_protocol_options={_HTTP_OPTIONS: to_any(options)} if upstream is not Upstream.TCP else None,
    )


def _discovery(plan: Cluster) -> dict[str, Any]:
    match plan.discovery:
        case Discovery.EDS:
            return {"type": "EDS", "eds_cluster_config": {"eds_config": ADS, "service_name": plan.name}}
        case Discovery.ORIGINAL_DST:
            return {"type": "ORIGINAL_DST"}
        case _:
            kind = "LOGICAL_DNS" if plan.discovery is Discovery.DNS_FIRST else "STRICT_DNS"
            return {
                "type": kind,
                "dns_lookup_family": "V4_ONLY",
                "respect_dns_ttl": True,
                "load_assignment": _addresses(plan, at_most=1 if kind == "LOGICAL_DNS" else None),
            }


def _addresses(plan: Cluster, at_most: int | None) -> "api.ClusterLoadAssignment":
    endpoints = [
        api.LbEndpoint(
            endpoint=api.Endpoint(
                address=api.Address(
                    socket_address=api.SocketAddress(address=endpoint.address, port_value=endpoint.port)
                )
            ),
            load_balancing_weight=api.UInt32Value(value=endpoint.weight),
        )
        for endpoint in plan.endpoints[:at_most]
    ]
    return api.ClusterLoadAssignment(
        cluster_name=plan.name, endpoints=[api.LocalityLbEndpoints(lb_endpoints=endpoints)]
    )


def _transport(plan: Cluster, settings: MeshSettings) -> dict[str, Any]:
    if plan.originate:
        return {"transport_socket": tls.originate(plan.originate, _APPLICATION_ALPN[plan.upstream])}
    if plan.mesh_tls is MeshTls.NEVER:
        return {}
    domains = (settings.trust_domain, *settings.trust_domain_aliases)
    alpn = tls.MESH_TCP_ALPN[:1] if plan.is_relayed else _ALPN[plan.upstream]
    mesh = tls.mesh_upstream(plan.sni, alpn, plan.subject_alt_names, domains)
    if plan.mesh_tls is MeshTls.ALWAYS:
        return {"transport_socket": mesh}
    return {
        "transport_socket_matches": [
            api.Cluster.TransportSocketMatch(
                name="tlsMode-istio", match=struct({"tlsMode": "istio"}), transport_socket=mesh
            ),
            api.Cluster.TransportSocketMatch(name="tlsMode-disabled", match=struct({}), transport_socket=tls.plain()),
        ]
    }


def _protocol(plan: Cluster, http: dict[str, Any], settings: MeshSettings) -> "api.Any":
    if plan.mesh_tls is not MeshTls.NEVER:
        age = settings.max_connection_age_seconds
        age = min(age, _RELAYED_AGE_SECONDS) if plan.is_relayed else age
        http.setdefault("max_connection_duration", timedelta(seconds=age))
    options = api.HttpProtocolOptions(
        common_http_protocol_options=api.CoreHttpProtocolOptions(**http),
        http_filters=[] if plan.is_relayed or plan.mesh_tls is MeshTls.NEVER else observing.telling_filters(),
    )
    if plan.originate and not plan.originate.sni:  # of a wildcard: each request's host, which must be the server's name
        options.upstream_http_protocol_options.auto_sni = True
        options.upstream_http_protocol_options.auto_san_validation = not (
            plan.originate.subject_alt_names or plan.originate.insecure_skip_verify
        )
    match plan.upstream:
        case Upstream.HTTP2:
            options.explicit_http_config.http2_protocol_options.CopyFrom(_http2())
        case Upstream.HTTP1:
            options.explicit_http_config.http_protocol_options.CopyFrom(api.Http1ProtocolOptions())
        case _:
            options.use_downstream_protocol_config.CopyFrom(_downstream())
    return to_any(options)


@cache
def _as_streams(age_seconds: float) -> "api.Any":
    """For those clients who send connections as streams of one; who relays each in its own never looks here.

    What is opened later than that proves anew who it is from. What is open stays.
    """
    age = timedelta(seconds=age_seconds)
    options = api.HttpProtocolOptions(
        common_http_protocol_options=api.CoreHttpProtocolOptions(max_connection_duration=age)
    )
    options.explicit_http_config.http2_protocol_options.CopyFrom(tunnels.http2())
    return to_any(options)


def _http2() -> "api.Http2ProtocolOptions":
    return api.Http2ProtocolOptions(allow_connect=True)


def _downstream() -> "api.HttpProtocolOptions.UseDownstreamHttpConfig":
    return api.HttpProtocolOptions.UseDownstreamHttpConfig(
        http_protocol_options=api.Http1ProtocolOptions(), http2_protocol_options=_http2()
    )


def _service_metadata(service: ServiceName | None, mesh_tls: MeshTls) -> "api.Metadata | None":
    """What the calling sidecar's metrics say of the connection and its service (`series`)."""
    if service is None:
        return None
    security = "mutual_tls" if mesh_tls is MeshTls.ALWAYS else "unknown"
    told = {observing.SERVICE: f"{security};{service.host};{service.name};{service.namespace}"}
    return api.Metadata(filter_metadata={observing.METADATA: struct(told)})
