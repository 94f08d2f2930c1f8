"""Limits of connections and requests, on the cluster, as Istio maps them: what is not given is unlimited.

Source: Envoy `CircuitBreakers.Thresholds`, `UpstreamConnectionOptions`; Istio's ConnectionPoolSettings.
"""

from typing import Any, Final

from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings
from tulle.model.origin import Origin
from tulle.policies.connection_pool.spec import ConnectionPool
from tulle.policies.durations import milliseconds
from tulle.policies.fragments import ClusterFragment
from tulle.xds import api

_UNLIMITED: Final = 2**32 - 1
_MESH: Final = Origin(ObjectKey("", "", "MeshSettings", "", "mesh"))


def default(_: MeshSettings) -> ConnectionPool:
    """Istio's: no limits, where Envoy's own are 1,024 of everything and 3 retries."""
    return ConnectionPool(
        max_connections=None,
        connect_timeout_ms=None,
        keepalive_probes=None,
        keepalive_time_s=None,
        keepalive_interval_s=None,
        max_pending_requests=None,
        max_requests=None,
        max_requests_per_connection=None,
        max_retries=None,
        idle_timeout_ms=None,
        max_connection_duration_ms=None,
        upgrade_to_http2=None,
        origin=_MESH,
    )


def on_cluster(spec: ConnectionPool) -> ClusterFragment:
    """Circuit breakers, connect timeout and keep-alive; ages and requests of a connection go to the HTTP options.

    `upgrade_to_http2` is not expressed here: which HTTP a cluster speaks is the compiler's.
    """
    thresholds = api.CircuitBreakers.Thresholds(
        max_connections=_limit(spec.max_connections),
        max_pending_requests=_limit(spec.max_pending_requests),
        max_requests=_limit(spec.max_requests),
        max_retries=_limit(spec.max_retries),
        track_remaining=True,
    )
    cluster: dict[str, Any] = {"circuit_breakers": api.CircuitBreakers(thresholds=[thresholds])}
    if spec.connect_timeout_ms:
        cluster["connect_timeout"] = milliseconds(spec.connect_timeout_ms)
    keepalive = _keepalive(spec)
    if keepalive is not None:
        cluster["upstream_connection_options"] = api.UpstreamConnectionOptions(tcp_keepalive=keepalive)
    return ClusterFragment(cluster=cluster, http=_http(spec))


def _http(spec: ConnectionPool) -> dict[str, Any]:
    http: dict[str, Any] = {}
    if spec.max_requests_per_connection:
        http["max_requests_per_connection"] = api.UInt32Value(value=spec.max_requests_per_connection)
    if spec.idle_timeout_ms is not None:
        http["idle_timeout"] = milliseconds(spec.idle_timeout_ms)
    if spec.max_connection_duration_ms:
        http["max_connection_duration"] = milliseconds(spec.max_connection_duration_ms)
    return http


def _keepalive(spec: ConnectionPool) -> "api.TcpKeepalive | None":
    given = (spec.keepalive_probes, spec.keepalive_time_s, spec.keepalive_interval_s)
    if given == (None, None, None):
        return None
    probes, time, interval = (api.UInt32Value(value=one) if one else None for one in given)
    return api.TcpKeepalive(keepalive_probes=probes, keepalive_time=time, keepalive_interval=interval)


def _limit(value: int | None) -> "api.UInt32Value":
    """Istio reads 0 as not given."""
    return api.UInt32Value(value=value or _UNLIMITED)
