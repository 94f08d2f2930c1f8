"""What an Envoy knows before it has met the control plane: the JSON of `--config-yaml`.

Pure, and plain JSON rather than messages of `xds.api`, because a supervisor starts a dozen proxies within a second and
loading the schema would cost a fifth of it; tests hold every bootstrap against the schema and the real binary. Knows
no plan: listeners and clusters come over ADS. Sources: docs/facts/envoy.md §3, §5; Istio's bootstrap for node
identity and ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from tulle.compile.envoy import series

Json = dict[str, Any]

XDS_SOCKET: Final = "/run/tulle/xds/xds.sock"
"""In the mount namespace of every sidecar."""
ADMIN_DIRECTORY: Final = "/run/tulle/envoy"
EDGE_DIRECTORY: Final = "/run/tulle/edge"
PROMETHEUS_PORT: Final = 15090
READINESS_PORT: Final = 15021
EGRESS_PORT: Final = 15001
PROMETHEUS_PATH: Final = "/stats/prometheus"
ADMIN_CLUSTER: Final = "prometheus_stats"
"""Leads to the proxy's own admin interface."""
SIDECAR_MARK: Final = 1337
MAX_DOWNSTREAM_CONNECTIONS: Final = 20_000

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - inside a pod's own network namespace
TYPE: Final = "type.googleapis.com/envoy."
_BUCKETS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000)
_KEPT_STATS: Final = (
    f"{series.SCOPE}.",
    "cluster_manager",
    "listener_manager",
    "server.",
    "control_plane",
    "http.admin",
    "overload",
)
_KEPT_SUFFIXES: Final = (
    "downstream_cx_active",
    "downstream_cx_total",
    "downstream_rq_active",
    "upstream_cx_active",
    "upstream_rq_pending_active",
    "ssl.handshake",
    "ssl.fail_verify_san",
    "ssl.fail_verify_error",
)


class Node(Struct, frozen=True):
    """Who a proxy says it is. It grants nothing: the control plane knows the pod by the socket it speaks on."""

    ip: str
    pod: str
    namespace: str
    workload: str
    service_account: str
    labels: tuple[tuple[str, str], ...]
    cluster: str
    mesh_id: str
    uid: str
    is_gateway: bool = False

    @property
    def id(self) -> str:
        """Istio's form: `sidecar~10.1.2.3~reviews-1.default~default.svc.cluster.local`."""
        role = "router" if self.is_gateway else "sidecar"
        return f"{role}~{self.ip}~{self.pod}.{self.namespace}~{self.namespace}.svc.cluster.local"

    @property
    def metadata(self) -> Json:
        """Istio's keys, so that its tools understand our proxies."""
        return {
            "NAME": self.pod,
            "NAMESPACE": self.namespace,
            "WORKLOAD_NAME": self.workload,
            "LABELS": dict(self.labels),
            "SERVICE_ACCOUNT": self.service_account,
            "CLUSTER_ID": self.cluster,
            "MESH_ID": self.mesh_id,
            "INSTANCE_IPS": self.ip,
            "POD_UID": self.uid,
        }


def sidecar(
    node: Node, admin_socket: str = f"{ADMIN_DIRECTORY}/admin.sock", resolver: tuple[str, int] | None = None
) -> Json:
    """The bootstrap of a sidecar or gateway whose control plane is behind `XDS_SOCKET`.

    `resolver` (address and UDP port) must know external hosts by their own addresses, not by those the mesh gave them.
    """
    return {
        **({} if resolver is None else {"typed_dns_resolver_config": _cares(resolver)}),
        **proxy(node, _xds_by_socket(), admin_socket, longest_pause=_SOCKET_PAUSE),
        "cluster_manager": {
            "upstream_bind_config": {
                "socket_options": [
                    {"level": 1, "name": 36, "int_value": SIDECAR_MARK, "state": "STATE_PREBIND"},
                ]
            }
        },
    }


def proxy(
    node: Node,
    xds: Json,
    admin_socket: str,
    listeners: Iterable[Json] = (),
    clusters: Iterable[Json] = (),
    *,
    longest_pause: str | None = None,
    kept_stats: Sequence[Json] = (),
) -> Json:
    """What every proxy of a mesh begins with; `xds` is the cluster named xds-grpc, listeners and clusters are its own.

    `longest_pause` is that between two attempts to reach the control plane; `kept_stats` are string matchers of statistics
    that exist besides those of every proxy.
    """
    reconnect = {"base_interval": _RECONNECT_AFTER, "max_interval": longest_pause or _NETWORK_PAUSE}
    stream = {"cluster_name": "xds-grpc", "retry_policy": {"retry_back_off": reconnect}}
    app = dict(node.labels).get("app", node.workload)
    return {
        "node": {"id": node.id, "cluster": f"{app}.{node.namespace}", "metadata": node.metadata},
        "admin": _admin(admin_socket),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": stream}],
            },
            "cds_config": _ADS,
            "lds_config": _ADS,
        },
        "static_resources": {
            "clusters": [xds, _pipe_cluster(ADMIN_CLUSTER, admin_socket), *clusters],
            "listeners": [_prometheus(), _readiness(), *listeners],
        },
        "stats_flush_interval": "5s",
        "stats_eviction_interval": "60s",
        "stats_config": _stats(kept_stats),
        "overload_manager": _OVERLOAD,
        "layered_runtime": _RUNTIME,
        "bootstrap_extensions": [LISTENERS_INSIDE],
    }


def host_edge(directory: str, admin_socket: str) -> Json:
    """The proxy in the machine's own network: published ports in, everything that leaves the mesh out.

    `directory` holds `out.sock` (made here) and `host-lds.json`, `host-cds.json`, `in-<port>.sock` (made elsewhere).
    """
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "egress",
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "stream_idle_timeout": "0s",
        "http_filters": [ROUTER],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "connect",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"connect_matcher": {}},
                            "route": {
                                "cluster": "world",
                                "timeout": "0s",
                                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                            },
                        }
                    ],
                }
            ]
        },
    }
    world = {
        "name": "world",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": _UNLIMITED,
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ":authority"},
    }
    egress = {
        "name": "egress",
        "address": _pipe(f"{directory}/out.sock"),
        "filter_chains": [{"filters": [{"name": HTTP_MANAGER, "typed_config": manager}]}],
    }
    return _edge("host", directory, admin_socket, [world], [egress])


def fabric_edge(admin_socket: str = f"{EDGE_DIRECTORY}/fabric-admin.sock") -> Json:
    """The proxy in the mesh's bridge: from `in-<port>.sock` to gateway pods, from pods to `out.sock`."""
    tunnel = {
        "@type": f"{TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "egress",
        "cluster": "host",
        "tunneling_config": {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"},
    }
    egress = {
        "name": "egress",
        "address": socket_address(ANY_ADDRESS, EGRESS_PORT),
        "listener_filters": [
            {
                "name": "envoy.filters.listener.original_dst",
                "typed_config": {"@type": f"{TYPE}extensions.filters.listener.original_dst.v3.OriginalDst"},
            }
        ],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tunnel}]}],
    }
    host = _pipe_cluster("host", f"{EDGE_DIRECTORY}/out.sock")
    return _edge("fabric", EDGE_DIRECTORY, admin_socket, [host], [egress])


class PublishedPort(Struct, frozen=True, order=True):
    """One port of a gateway's Service, offered on the machine."""

    port: int
    """Of the Service."""
    host_port: int
    endpoints: tuple[tuple[str, int], ...] = ()
    """Address and port of every ready gateway pod."""
    addresses: tuple[str, ...] = ("127.0.0.1",)
    """Of the machine, to listen on."""


def host_edge_files(directory: str, ports: tuple[PublishedPort, ...]) -> dict[str, Json]:
    """File name -> contents of what changes while the host edge runs."""
    listeners = [
        {
            "name": f"in-{port.port}-{address}",
            "address": socket_address(address, port.host_port),
            # Two meshes of one user must not share a port unnoticed.
            "enable_reuse_port": False,
            "filter_chains": [_relay(f"in-{port.port}")],
        }
        for port in ports
        for address in port.addresses
    ]
    clusters = [_pipe_cluster(f"in-{port.port}", f"{directory}/in-{port.port}.sock") for port in ports]
    return {"host-lds.json": _listed("listener.v3.Listener", listeners), "host-cds.json": _listed(_CLUSTER, clusters)}


def fabric_edge_files(ports: tuple[PublishedPort, ...]) -> dict[str, Json]:
    """File name -> contents of what changes while the fabric edge runs."""
    listeners = [
        {
            "name": f"in-{port.port}",
            "address": _pipe(f"{EDGE_DIRECTORY}/in-{port.port}.sock"),
            "filter_chains": [_relay(f"gateway-{port.port}")],
        }
        for port in ports
    ]
    clusters = [
        {
            "name": f"gateway-{port.port}",
            "type": "EDS",
            "connect_timeout": "10s",
            "circuit_breakers": _UNLIMITED,
            "eds_cluster_config": {"eds_config": _file(f"{EDGE_DIRECTORY}/eds-{port.port}.json")},
        }
        for port in ports
    ]
    files = {
        "fabric-lds.json": _listed("listener.v3.Listener", listeners),
        "fabric-cds.json": _listed(_CLUSTER, clusters),
    }
    for port in ports:
        endpoints = [{"endpoint": {"address": socket_address(*endpoint)}} for endpoint in port.endpoints]
        assignment = {"cluster_name": f"gateway-{port.port}", "endpoints": [{"lb_endpoints": endpoints}]}
        files[f"eds-{port.port}.json"] = _listed("endpoint.v3.ClusterLoadAssignment", [assignment])
    return files


_CLUSTER: Final = "cluster.v3.Cluster"
HTTP_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_ADS: Final[Mapping[str, Any]] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
ROUTER: Final[Mapping[str, Any]] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
}
_NO_LIMIT: Final = 4_294_967_295
_UNLIMITED: Final[Mapping[str, Any]] = {
    "thresholds": [
        {"max_connections": _NO_LIMIT, "max_pending_requests": _NO_LIMIT, "max_requests": _NO_LIMIT},
    ]
}
"""Envoy's own limit of 1024 connections a cluster would reset callers of a published port; the listener's limit protects."""
_RECONNECT_AFTER: Final = "0.025s"
"""A sidecar that is up before the control plane must not wait for Envoy's usual half a second to thirty."""
_SOCKET_PAUSE: Final = "0.25s"
"""Longest pause between two looks for a socket of this machine, which cost next to nothing."""
_NETWORK_PAUSE: Final = "2s"
_OVERLOAD: Final[Mapping[str, Any]] = {
    "refresh_interval": "1s",
    "resource_monitors": [
        {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": f"{TYPE}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": MAX_DOWNSTREAM_CONNECTIONS,
            },
        }
    ],
}
LISTENERS_INSIDE: Final[Mapping[str, Any]] = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {"@type": f"{TYPE}extensions.bootstrap.internal_listener.v3.InternalListener"},
}
"""Lets clusters lead to listeners of the same process: first requests of on-demand sidecars take that way."""
_RUNTIME: Final[Mapping[str, Any]] = {
    "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}]
}


def _stats(more: Sequence[Json]) -> Json:
    kept = [
        *({"prefix": prefix} for prefix in _KEPT_STATS),
        *({"suffix": suffix} for suffix in _KEPT_SUFFIXES),
        *more,
    ]
    return {
        "stats_matcher": {"inclusion_list": {"patterns": kept}},
        "histogram_bucket_settings": [{"match": {"prefix": f"{series.SCOPE}.istio"}, "buckets": [*_BUCKETS, 3600000]}],
    }


def _edge(name: str, directory: str, admin_socket: str, clusters: list[Json], listeners: list[Json]) -> Json:
    return {
        "node": {"id": f"edge~{name}", "cluster": "edge"},
        "admin": _admin(admin_socket),
        "dynamic_resources": {
            "lds_config": _file(f"{directory}/{name}-lds.json"),
            "cds_config": _file(f"{directory}/{name}-cds.json"),
        },
        "static_resources": {"clusters": clusters, "listeners": listeners},
        "overload_manager": _OVERLOAD,
        "layered_runtime": _RUNTIME,
    }


def _cares(resolver: tuple[str, int]) -> Json:
    return {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": f"{TYPE}extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [socket_address(*resolver)],
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    }


def _admin(path: str) -> Json:
    return {"address": _pipe(path)}


def _pipe(path: str) -> Json:
    return {"pipe": {"path": path, "mode": 0o600}}


def socket_address(address: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": address, "port_value": port}}


def _file(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _listed(message: str, resources: list[Json]) -> Json:
    return {"resources": [{"@type": f"{TYPE}config.{message}", **resource} for resource in resources]}


def _relay(cluster: str) -> Json:
    proxy = {
        "@type": f"{TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": cluster,
        "cluster": cluster,
        "idle_timeout": "0s",
    }
    return {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}


def _pipe_cluster(name: str, path: str) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": _UNLIMITED,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _xds_by_socket() -> Json:
    return {**_pipe_cluster("xds-grpc", XDS_SOCKET), **http2_kept_alive()}


def http2_kept_alive(filters: Sequence[Json] = ()) -> Json:
    """Options of a cluster to the control plane: one that is gone without a word is noticed after 15 s."""
    options = {
        "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
        **({"http_filters": list(filters)} if filters else {}),
    }
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}


def _prometheus() -> Json:
    named = {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{TYPE}extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": series.SCRIPT},
        },
    }
    return _one_path("prometheus", PROMETHEUS_PORT, PROMETHEUS_PATH, PROMETHEUS_PATH, [named])


def _readiness() -> Json:
    return _one_path("readiness", READINESS_PORT, "/healthz/ready", "/ready")


def _one_path(name: str, port: int, path: str, admin_path: str, filters: Sequence[Json] = ()) -> Json:
    """A listener that serves one exact path of the admin interface and nothing else of it."""
    route = {"cluster": ADMIN_CLUSTER, "prefix_rewrite": admin_path, "timeout": "10s"}
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "normalize_path": True,
        "http_filters": [*filters, ROUTER],
        "route_config": {
            # Envoy offers metrics in other forms than text, and `filters` read text.
            "request_headers_to_remove": ["accept", "accept-encoding"],
            "virtual_hosts": [
                {
                    "name": name,
                    "domains": ["*"],
                    "routes": [{"match": {"path": path, "headers": [GET]}, "route": route}],
                }
            ],
        },
    }
    return {
        "name": name,
        "address": socket_address(ANY_ADDRESS, port),
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [{"name": HTTP_MANAGER, "typed_config": manager}]}],
    }


GET: Final[Mapping[str, Any]] = {"name": ":method", "string_match": {"exact": "GET"}}
