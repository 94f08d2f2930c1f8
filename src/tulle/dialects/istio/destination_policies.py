"""What a DestinationRule's traffic policy asks for: the specs of policy kinds. One function per kind, one tuple of them."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from tulle.dialects.istio import schema_destination_rule as written
from tulle.dialects.istio.names import whole_ms, whole_s
from tulle.model.origin import Origin
from tulle.policies.connection_pool.spec import ConnectionPool
from tulle.policies.load_balancing.spec import Algorithm, HashKey, LoadBalancing
from tulle.policies.outlier_detection.spec import OutlierDetection

Written = written.TrafficPolicy | written.PortPolicy
Reader = Callable[[Written, Origin], Iterator[Any]]

_INTERVAL_MS: Final = 10_000
_BASE_EJECTION_MS: Final = 30_000
_MAX_EJECTION_PERCENT: Final = 10


def destination_policies(policy: Written, origin: Origin) -> tuple[Any, ...]:
    """Policy values of a traffic policy or of its settings for one port; `origin` is theirs."""
    return tuple(one for reader in _READERS for one in reader(policy, origin))


def _load_balancing(policy: Written, origin: Origin) -> Iterator[Any]:
    balancer = policy.load_balancer
    if balancer is None:
        return
    chosen = balancer.consistent_hash
    ring = chosen.ring_hash if chosen else None
    warmup = balancer.warmup.duration if balancer.warmup else balancer.warmup_duration_secs
    yield LoadBalancing(
        algorithm=_algorithm(balancer),
        hash_key=_hash_key(chosen) if chosen else None,
        minimum_ring_size=(ring.minimum_ring_size if ring else None) or (chosen.minimum_ring_size if chosen else None),
        table_size=chosen.maglev.table_size if chosen and chosen.maglev else None,
        warmup_ms=whole_ms(warmup),
        origin=origin.at("loadBalancer"),
    )


def _algorithm(balancer: written.LoadBalancer) -> Algorithm:
    if balancer.consistent_hash is not None:
        return Algorithm.MAGLEV if balancer.consistent_hash.maglev is not None else Algorithm.RING_HASH
    match balancer.simple:
        case None | "UNSPECIFIED" | "LEAST_CONN":
            return Algorithm.LEAST_REQUEST
        case simple:
            return Algorithm(simple)


def _hash_key(chosen: written.ConsistentHash) -> HashKey:
    cookie = chosen.http_cookie
    return HashKey(
        header=chosen.http_header_name,
        cookie=cookie.name if cookie else "",
        cookie_path=cookie.path if cookie else "",
        cookie_ttl_ms=whole_ms(cookie.ttl) if cookie else None,
        use_source_ip=chosen.use_source_ip,
        query_parameter=chosen.http_query_parameter_name,
    )


def _connection_pool(policy: Written, origin: Origin) -> Iterator[Any]:
    pool = policy.connection_pool
    if pool is None:
        return
    keepalive = pool.tcp.tcp_keepalive or written.TcpKeepalive()
    yield ConnectionPool(
        max_connections=pool.tcp.max_connections,
        connect_timeout_ms=whole_ms(pool.tcp.connect_timeout),
        keepalive_probes=keepalive.probes,
        keepalive_time_s=whole_s(keepalive.time),
        keepalive_interval_s=whole_s(keepalive.interval),
        max_pending_requests=pool.http.http1_max_pending_requests,
        max_requests=pool.http.http2_max_requests,
        max_requests_per_connection=pool.http.max_requests_per_connection,
        max_retries=pool.http.max_retries,
        idle_timeout_ms=whole_ms(pool.http.idle_timeout),
        max_connection_duration_ms=whole_ms(pool.tcp.max_connection_duration),
        upgrade_to_http2={"UPGRADE": True, "DO_NOT_UPGRADE": False}.get(pool.http.h2_upgrade_policy),
        origin=origin.at("connectionPool"),
    )


def _outlier_detection(policy: Written, origin: Origin) -> Iterator[Any]:
    detection = policy.outlier_detection
    if detection is None:
        return
    gateway_errors, any_5xx = detection.consecutive_gateway_errors, detection.consecutive_5xx_errors
    if detection.consecutive_errors:
        # Istio's conversion of the deprecated field: gateway errors count, other 5xx answers do not.
        gateway_errors = detection.consecutive_errors if gateway_errors is None else gateway_errors
        any_5xx = 0 if any_5xx is None else any_5xx
    yield OutlierDetection(
        consecutive_5xx=any_5xx,
        consecutive_gateway_errors=gateway_errors,
        consecutive_local_origin_failures=detection.consecutive_local_origin_failures,
        split_external_local_origin=detection.split_external_local_origin_errors,
        interval_ms=whole_ms(detection.interval) or _INTERVAL_MS,
        base_ejection_ms=whole_ms(detection.base_ejection_time) or _BASE_EJECTION_MS,
        max_ejection_percent=(
            _MAX_EJECTION_PERCENT if detection.max_ejection_percent is None else detection.max_ejection_percent
        ),
        min_health_percent=detection.min_health_percent,
        origin=origin.at("outlierDetection"),
    )


_READERS: Final[tuple[Reader, ...]] = (_load_balancing, _connection_pool, _outlier_detection)
