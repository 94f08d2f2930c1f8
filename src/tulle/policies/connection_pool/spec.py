"""Limits of connections and requests (circuit breaking)."""

from msgspec import Struct

from tulle.model.origin import Origin


class ConnectionPool(Struct, frozen=True):
    """Istio's ConnectionPoolSettings. None: unlimited or Envoy's default."""

    max_connections: int | None
    connect_timeout_ms: int | None
    keepalive_probes: int | None
    keepalive_time_s: int | None
    keepalive_interval_s: int | None
    max_pending_requests: int | None
    max_requests: int | None
    max_requests_per_connection: int | None
    max_retries: int | None
    idle_timeout_ms: int | None
    max_connection_duration_ms: int | None
    upgrade_to_http2: bool | None
    """h2UpgradePolicy: UPGRADE or DO_NOT_UPGRADE; None: the mesh's default."""
    origin: Origin
