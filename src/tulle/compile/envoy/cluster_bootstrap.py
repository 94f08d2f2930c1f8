"""What the Envoy of a pod in a Kubernetes cluster knows before it has met the control plane.

The bootstrap of the local run with four things else: the control plane is a Service behind TLS, the proxy proves itself
by the pod's token, the kubelet's probes of the workload are answered here, because the kubelet has no certificate, and what
the proxy knows can be read (not changed) at a port of the pod's loopback, where the API's port-forward arrives.
Pure. Values that a pod learns only where it runs stand as `$(NAME)`, which the kubelet replaces in arguments. Which probes
a pod has is `injecting`'s to know. Sources: docs/facts/envoy.md; Kubernetes, "Define Dependent Environment Variables".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from tulle.compile.envoy.bootstrap import (
    ADMIN_CLUSTER,
    ANY_ADDRESS,
    GET,
    HTTP_MANAGER,
    ROUTER,
    TYPE,
    Node,
    http2_kept_alive,
    proxy,
)
from tulle.compile.envoy.bootstrap import socket_address as at
from tulle.compile.envoy.clusters import INBOUND_SOURCE

Json = dict[str, Any]

TOKEN_DIRECTORY: Final = "/var/run/secrets/tulle.dev/token"  # noqa: S105 - where it is, not what
ROOT_DIRECTORY: Final = "/var/run/secrets/tulle.dev/root"
ROOT_CERTIFICATES: Final = "root-cert.pem"
ROOT_RESOURCE: Final = "sds.json"
ADMIN_SOCKET: Final = "/run/tulle/envoy/admin.sock"
PROBE_PORT: Final = 15020
LOOKING_PORT: Final = 15000
"""Istio's port of Envoy's admin interface; here of what may be read of it, on the pod's loopback alone."""
LOOKING_PATHS: Final = (
    *("/certs", "/clusters", "/config_dump", "/listeners", "/ready", "/server_info", "/stats", "/stats/prometheus"),
)
"""What is passed on to the admin interface there: GET of these, which change nothing. Envoy redacts keys in `config_dump`."""
POD_ADDRESS: Final = "$(TULLE_POD_IP)"
DRAIN_SECONDS: Final = 5

_ROOT: Final = "tulle-root"
_OURS = re.compile(r"\$\$\((TULLE_[A-Z_]+)\)")
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Discovery(Struct, frozen=True):
    """Where the control plane is: the DNS name its certificate is for, and its port."""

    host: str
    port: int = 15012


class HttpProbe(Struct, frozen=True):
    """A request of the kubelet that is passed on to the workload."""

    path: str
    """Where the kubelet asks: exact, on `PROBE_PORT`."""
    port: int
    """Of the workload."""
    target: str
    """Path and query that the workload is asked for."""
    timeout_s: int
    is_https: bool = False
    """The certificate of the workload is not verified: the kubelet does not, either."""
    names_host: bool = False
    """Whether the probe has a Host header of its own."""


class ConnectProbe(Struct, frozen=True):
    """A connection that the kubelet wants to see made; gRPC health where `service` is not None ("": the whole server)."""

    path: str
    port: int
    period_s: int
    timeout_s: int
    service: str | None = None


Probe = HttpProbe | ConnectProbe


def pod_proxy(node: Node, discovery: Discovery, probes: Sequence[Probe] = ()) -> Json:
    """The bootstrap of a sidecar or gateway in a cluster."""
    if not probes:
        return proxy(node, _xds(discovery), ADMIN_SOCKET, [_looking()])
    return proxy(
        node, _xds(discovery), ADMIN_SOCKET, [_looking(), _probing(probes)], _probed(probes), kept_stats=[_HEALTH]
    )


def arguments(
    bootstrap: Json, *, concurrency: int, log_level: str, components: str = "", drain_seconds: int = DRAIN_SECONDS
) -> list[str]:
    """Envoy's arguments as a container's `args`. `concurrency` 0: a thread per CPU of the machine.

    `drain_seconds`: how long connections of a listener that changed live on.

    The kubelet reads `$` in arguments: every one is doubled but those of our own variables.
    """
    text = json.dumps(bootstrap, separators=(",", ":")).replace("$", "$$")
    return [
        *("--config-yaml", _OURS.sub(r"$(\1)", text)),
        *(("--concurrency", str(concurrency)) if concurrency else ()),
        "--disable-hot-restart",
        *("--drain-time-s", str(drain_seconds)),
        *("--file-flush-interval-msec", "1000"),
        *("--log-level", log_level),
        *(("--component-log-level", components) if components else ()),
    ]


def root_resource(pem: str) -> str:
    """What `ROOT_RESOURCE` holds: the roots to trust, by SDS from a file.

    Without SDS Envoy reads the roots once, whatever directory it is told to watch (tried on 1.40). They stand in it as they are:
    a file it named would be watched beside it, and all sidecars of a node share the inotify instances of one user
    (docs/facts/envoy.md §10).
    """
    secret = {
        "@type": f"{TYPE}extensions.transport_sockets.tls.v3.Secret",
        "name": _ROOT,
        "validation_context": {"trusted_ca": {"inline_string": pem}},
    }
    return json.dumps({"resources": [secret]}, separators=(",", ":"))


def _xds(discovery: Discovery) -> Json:
    tls = {
        "@type": f"{TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": discovery.host,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": discovery.host}}]
                },
                "validation_context_sds_secret_config": {
                    "name": _ROOT,
                    "sds_config": {
                        "path_config_source": {
                            "path": f"{ROOT_DIRECTORY}/{ROOT_RESOURCE}",
                            "watched_directory": {"path": ROOT_DIRECTORY},
                        },
                        "resource_api_version": "V3",
                    },
                },
            },
        },
    }
    return {
        "name": "xds-grpc",
        "cluster_type": {"name": "envoy.clusters.dns", "typed_config": _STRICT_DNS},
        "connect_timeout": "5s",
        "load_assignment": _assigned("xds-grpc", discovery.host, discovery.port),
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        **http2_kept_alive([_token(), _CODEC]),
    }


_STRICT_DNS: Final[Json] = {
    "@type": f"{TYPE}extensions.clusters.dns.v3.DnsCluster",
    "dns_lookup_family": "V4_PREFERRED",
    "dns_refresh_rate": "10s",
    "dns_failure_refresh_rate": {"base_interval": "0.2s", "max_interval": "2s"},
}
_CODEC: Final[Json] = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": {"@type": f"{TYPE}extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
}


_SHOW_TOKEN: Final = f"""
function envoy_on_request(handle)
  local file = io.open("{TOKEN_DIRECTORY}/token", "r")
  if not file then
    handle:logErr("the token of the pod cannot be read")
    return
  end
  handle:headers():replace("authorization", "Bearer " .. file:read("*a"))
  file:close()
end
"""


def _token() -> Json:
    """Reads the token, which the kubelet renews, for every stream to the control plane.

    `%FILE_CONTENT%` would watch it with two inotify instances (docs/facts/envoy.md §10).
    """
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{TYPE}extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": _SHOW_TOKEN},
        },
    }


def _looking() -> Json:
    """The listener behind `tulle proxy config` and the like: a fixed list of paths to read, for who may port-forward to the pod."""
    words = "|".join(path.removeprefix("/") for path in LOOKING_PATHS)
    route = {
        "match": {"safe_regex": {"regex": f"/({words})"}, "headers": [GET]},
        "route": {"cluster": ADMIN_CLUSTER, "timeout": "60s"},
    }
    return _listener("looking", at("127.0.0.1", LOOKING_PORT), [route], [ROUTER])


def _probing(probes: Iterable[Probe]) -> Json:
    """The listener of the kubelet's probes: known paths and nothing else."""
    routes = []
    filters = []
    for probe in probes:
        if isinstance(probe, HttpProbe):
            routes.append(_route(probe))
        else:
            filters.append(_answer(probe))
    more = {"server_header_transformation": "PASS_THROUGH", "skip_xff_append": True, "generate_request_id": False}
    return _listener("probes", at(ANY_ADDRESS, PROBE_PORT), routes, [*filters, _PROBE_ROUTER], more)


def _listener(
    name: str, address: Json, routes: Sequence[Json], filters: Sequence[Mapping[str, Any]], more: Json | None = None
) -> Json:
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        **(more or {}),
        "http_filters": list(filters),
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": list(routes)}]},
    }
    return {
        "name": name,
        "address": address,
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [{"name": HTTP_MANAGER, "typed_config": manager}]}],
    }


_PROBE_ROUTER: Final[Json] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True},
}


def _route(probe: HttpProbe) -> Json:
    host = {} if probe.names_host else {"host_rewrite_literal": f"{POD_ADDRESS}:{probe.port}"}
    return {
        "match": {"path": probe.path, "headers": [GET]},
        "route": {
            "cluster": _name(probe),
            "prefix_rewrite": probe.target,
            "timeout": f"{probe.timeout_s}s",
            **host,
        },
        # The kubelet would follow it to a place that only peers may see; a redirect counts as well (status below 400).
        "response_headers_to_remove": ["location"],
    }


_HEALTH: Final[Json] = {"safe_regex": {"regex": r"cluster\.probe\|.*\.membership_(total|healthy|degraded)"}}
"""The filter that answers counts by statistics: without them nothing is ever healthy."""


def _answer(probe: ConnectProbe) -> Json:
    check = {
        "@type": f"{TYPE}extensions.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode": False,
        "headers": [{"name": ":path", "string_match": {"exact": probe.path}}],
        "cluster_min_healthy_percentages": {_name(probe): {"value": 100}},
    }
    return {"name": "envoy.filters.http.health_check", "typed_config": check}


def _probed(probes: Iterable[Probe]) -> list[Json]:
    """One cluster for all probes that ask the same."""
    clusters = {_name(probe): _asked(probe) if isinstance(probe, HttpProbe) else _connected(probe) for probe in probes}
    return [clusters[name] for name in sorted(clusters)]


def _name(probe: Probe) -> str:
    if isinstance(probe, HttpProbe):
        return f"probe|{'https' if probe.is_https else 'http'}|{probe.port}"
    if probe.service is None:
        return f"probe|tcp|{probe.port}|{probe.period_s}|{probe.timeout_s}"
    return f"probe|grpc|{probe.port}|{probe.period_s}|{probe.timeout_s}|{probe.service}"


def _asked(probe: HttpProbe) -> Json:
    # A connection for each request, as the kubelet makes: none that the workload closed meanwhile.
    options = {
        "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    cluster = {**_workload(probe, probe.timeout_s), "typed_extension_protocol_options": {_HTTP_OPTIONS: options}}
    if probe.is_https:
        tls = {"@type": f"{TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return cluster


def _connected(probe: ConnectProbe) -> Json:
    """Envoy looks itself: a listener would take a connection whether or not the workload does."""
    check: Json = {
        "timeout": f"{probe.timeout_s}s",
        "interval": f"{max(1, probe.period_s // 2)}s",
        "no_traffic_interval": f"{max(1, probe.period_s // 2)}s",
        "unhealthy_interval": "1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "reuse_connection": False,
    }
    if probe.service is None:
        return {**_workload(probe, probe.timeout_s), "health_checks": [{**check, "tcp_health_check": {}}]}
    check["grpc_health_check"] = {"service_name": probe.service} if probe.service else {}
    options = {
        "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        **_workload(probe, probe.timeout_s),
        "health_checks": [check],
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
    }


def _workload(probe: Probe, timeout_s: int) -> Json:
    """The workload at the pod's address, from where the sidecar's inbound side calls it."""
    return {
        "name": _name(probe),
        "type": "STATIC",
        "connect_timeout": f"{timeout_s}s",
        "upstream_bind_config": {"source_address": {"address": INBOUND_SOURCE, "port_value": 0}},
        "load_assignment": _assigned(_name(probe), POD_ADDRESS, probe.port),
    }


def _assigned(name: str, address: str, port: int) -> Json:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(address, port)}}]}]}
