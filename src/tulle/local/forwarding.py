"""Without isolation: one forward proxy that finds services by name, for programs that honour `http_proxy`.

Pure. No sidecars, so no mTLS, no policies, no routing rules: names and load balancing only. Sources: Envoy's HTTP
CONNECT and absolute-form support; the endpoints are those `published.vips` knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

Json = dict[str, Any]
_TYPE: Final = "type.googleapis.com/envoy."


class Target(Struct, frozen=True, order=True):
    """One port of a Service and who is behind it."""

    namespace: str
    name: str
    port: int
    endpoints: tuple[tuple[str, int], ...]

    @property
    def cluster(self) -> str:
        """Its cluster."""
        return f"{self.port}.{self.name}.{self.namespace}"


def environment(port: int, ip: str) -> dict[str, str]:
    """What a program is told instead of being captured."""
    proxy = f"http://127.0.0.1:{port}"
    return {"http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": "", "BIND_ADDRESS": ip, "HOST": ip, "POD_IP": ip}


def settings(directory: str, admin_socket: str) -> Json:
    """The proxy's bootstrap; everything else comes by files."""
    return {
        "node": {"id": "forward", "cluster": "forward"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": {
            name: {"path_config_source": {"path": f"{directory}/forward-{name[:3]}.json"}, "resource_api_version": "V3"}
            for name in ("lds_config", "cds_config")
        },
    }


def files(directory: str, port: int, targets: Iterable[Target], domain: str = "cluster.local") -> Mapping[str, Json]:
    """File name -> contents."""
    known = sorted(targets)
    found: dict[str, Json] = {}
    for target in known:
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": number}}}}
            for ip, number in target.endpoints
        ]
        assignment = {"cluster_name": target.cluster, "endpoints": [{"lb_endpoints": endpoints}]}
        found[f"forward-eds-{target.cluster}.json"] = _listed("endpoint.v3.ClusterLoadAssignment", [assignment])
    found["forward-cds.json"] = _listed("cluster.v3.Cluster", [_cluster(directory, target) for target in known])
    found["forward-lds.json"] = _listed("listener.v3.Listener", [_listener(port, known, domain)])
    return found


def _cluster(directory: str, target: Target) -> Json:
    source = {"path": f"{directory}/forward-eds-{target.cluster}.json"}
    return {
        "name": target.cluster,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": {"path_config_source": source, "resource_api_version": "V3"}},
    }


def _listener(port: int, targets: list[Target], domain: str) -> Json:
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "forward",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}, {"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {"virtual_hosts": _virtual_hosts(targets, domain)},
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": "forward",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "enable_reuse_port": False,
        "filter_chains": [{"filters": filters}],
    }


def _virtual_hosts(targets: list[Target], domain: str) -> list[Json]:
    homes = Counter(name for name, _namespace in {(target.name, target.namespace) for target in targets})
    found = []
    for target in targets:
        names = [f"{target.name}.{target.namespace}{end}" for end in ("", ".svc", f".svc.{domain}")]
        if homes[target.name] == 1:
            names.append(target.name)
        domains = [f"{name}:{target.port}" for name in names]
        if target.port == 80:
            domains += names
        route = {"cluster": target.cluster, "timeout": "0s"}
        tunnel = {**route, "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
        routes = [
            {"match": {"connect_matcher": {}}, "route": tunnel},
            {"match": {"prefix": "/"}, "route": route},
        ]
        found.append({"name": target.cluster, "domains": domains, "routes": routes})
    return found


def _listed(message: str, resources: list[Json]) -> Json:
    return {"resources": [{"@type": f"{_TYPE}config.{message}", **resource} for resource in resources]}
