"""What is wrong with a DestinationRule that types cannot say. Source: Istio's validation webhook, Envoy's limits."""

from collections.abc import Iterator
from typing import Final

from tulle.dialects.istio import schema_destination_rule as written
from tulle.dialects.istio.check_words import (
    is_header,
    is_host,
    is_subset_name,
    positive_problems,
    selector_problems,
    visibility_problems,
)
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

_MAX_TABLE: Final = 5_000_011
"""Envoy: maglev tables are prime and not larger."""


def destination_rule_problems(spec: written.DestinationRule, origin: Origin) -> tuple[Problem, ...]:
    """Every problem of one DestinationRule; `origin` is that of its spec."""
    return tuple(_problems(spec, origin))


def _problems(spec: written.DestinationRule, origin: Origin) -> Iterator[Problem]:
    if not is_host(spec.host):
        yield problem("TUL0402", origin.at("host"), host=spec.host[:80])
    yield from _policy(spec.traffic_policy, origin.at("trafficPolicy"))
    seen: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        place = origin.at("subsets", index)
        if not is_subset_name(subset.name):
            yield problem("TUL0417", place.at("name"), name=subset.name[:80])
        if subset.name in seen:
            yield problem("TUL0442", place.at("name"), name=subset.name)
        seen.add(subset.name)
        yield from _policy(subset.traffic_policy, place.at("trafficPolicy"))
    yield from visibility_problems(spec.export_to, origin.at("exportTo"))
    yield from selector_problems(spec.workload_selector, origin.at("workloadSelector"))


def _policy(policy: written.TrafficPolicy | None, origin: Origin) -> Iterator[Problem]:
    if policy is None:
        return
    yield from _settings(policy, origin)
    ports: set[int] = set()
    for index, setting in enumerate(policy.port_level_settings):
        place = origin.at("portLevelSettings", index)
        if setting.port is None:
            yield problem("TUL0115", place, field="port")
        elif setting.port.number in ports:
            yield problem("TUL0451", place.at("port", "number"), port=setting.port.number)
        else:
            ports.add(setting.port.number)
        yield from _settings(setting, place)


def _settings(policy: written.TrafficPolicy | written.PortPolicy, origin: Origin) -> Iterator[Problem]:
    yield from _balancer(policy.load_balancer, origin.at("loadBalancer"))
    yield from _pool(policy.connection_pool, origin.at("connectionPool"))
    yield from _outliers(policy.outlier_detection, origin.at("outlierDetection"))
    yield from _tls(policy.tls, origin.at("tls"))


def _balancer(balancer: written.LoadBalancer | None, origin: Origin) -> Iterator[Problem]:
    if balancer is None:
        return
    if balancer.simple is not None and balancer.consistent_hash is not None:
        yield problem("TUL0443", origin)
    if balancer.simple == "LEAST_CONN":
        yield problem(
            "TUL0205", origin.at("simple"), field="LEAST_CONN", meaning="LEAST_REQUEST", instead="LEAST_REQUEST"
        )
    if balancer.warmup_duration_secs is not None:
        place = origin.at("warmupDurationSecs")
        meaning, instead = "warmup.duration", "warmup.duration"
        yield problem("TUL0205", place, field="warmupDurationSecs", meaning=meaning, instead=instead)
    if balancer.consistent_hash is not None:
        yield from _hash(balancer.consistent_hash, origin.at("consistentHash"))


def _hash(chosen: written.ConsistentHash, origin: Origin) -> Iterator[Problem]:
    keys = [
        name
        for name, value in (
            ("httpHeaderName", chosen.http_header_name),
            ("httpCookie", chosen.http_cookie),
            ("useSourceIp", chosen.use_source_ip),
            ("httpQueryParameterName", chosen.http_query_parameter_name),
        )
        if value
    ]
    if not keys:
        yield problem("TUL0444", origin)
    if len(keys) > 1:
        yield problem("TUL0445", origin, fields=" and ".join(keys))
    if chosen.http_header_name and not is_header(chosen.http_header_name):
        yield problem("TUL0415", origin.at("httpHeaderName"), name=chosen.http_header_name[:80])
    if chosen.http_cookie is not None and not is_header(chosen.http_cookie.name):
        yield problem("TUL0115", origin.at("httpCookie"), field="name")
    if chosen.ring_hash is not None and chosen.maglev is not None:
        yield problem("TUL0446", origin)
    if chosen.minimum_ring_size is not None:
        place = origin.at("minimumRingSize")
        instead = "ringHash.minimumRingSize"
        yield problem("TUL0205", place, field="minimumRingSize", meaning=instead, instead=instead)
    size = chosen.maglev.table_size if chosen.maglev else None
    if size is not None and not (2 <= size <= _MAX_TABLE and _is_prime(size)):
        yield problem("TUL0447", origin.at("maglev", "tableSize"), size=size, limit=_MAX_TABLE)


def _is_prime(number: int) -> bool:
    return (number % 2 != 0 and all(number % factor for factor in range(3, int(number**0.5) + 1, 2))) or number == 2


def _pool(pool: written.ConnectionPool | None, origin: Origin) -> Iterator[Problem]:
    if pool is None:
        return
    tcp = origin.at("tcp")
    yield from positive_problems(pool.tcp.connect_timeout, tcp.at("connectTimeout"))
    yield from positive_problems(pool.tcp.max_connection_duration, tcp.at("maxConnectionDuration"))
    if pool.tcp.tcp_keepalive is not None:
        keepalive = pool.tcp.tcp_keepalive
        yield from positive_problems(keepalive.time, tcp.at("tcpKeepalive", "time"))
        yield from positive_problems(keepalive.interval, tcp.at("tcpKeepalive", "interval"))
    yield from positive_problems(pool.http.idle_timeout, origin.at("http", "idleTimeout"), may_be_zero=True)


def _outliers(detection: written.OutlierDetection | None, origin: Origin) -> Iterator[Problem]:
    if detection is None:
        return
    if detection.consecutive_errors is not None:
        meaning = "consecutiveGatewayErrors, with consecutive5xxErrors off, as Istio converts it"
        instead = "consecutiveGatewayErrors or consecutive5xxErrors"
        place = origin.at("consecutiveErrors")
        yield problem("TUL0205", place, field="consecutiveErrors", meaning=meaning, instead=instead)
    if detection.consecutive_local_origin_failures and not detection.split_external_local_origin_errors:
        yield problem("TUL0452", origin.at("consecutiveLocalOriginFailures"))
    yield from positive_problems(detection.interval, origin.at("interval"))
    yield from positive_problems(detection.base_ejection_time, origin.at("baseEjectionTime"))


def _tls(tls: written.ClientTls | None, origin: Origin) -> Iterator[Problem]:
    if tls is None:
        return
    if tls.mode == "MUTUAL" and not tls.credential_name:
        yield problem("TUL0448", origin)
    given = [
        name
        for name, value in (
            ("credentialName", tls.credential_name),
            ("clientCertificate", tls.client_certificate),
            ("privateKey", tls.private_key),
            ("caCertificates", tls.ca_certificates),
        )
        if value
    ]
    if tls.mode in ("SIMPLE", "MUTUAL"):
        for name, value in (("credentialName", tls.credential_name), ("caCertificates", tls.ca_certificates)):
            if value and value != "system":
                yield problem("TUL0472", origin.at(name), field=name)
    if tls.mode in ("DISABLE", "ISTIO_MUTUAL"):
        for name in given:
            yield problem("TUL0449", origin.at(name), field=name, mode=tls.mode)
    if tls.mode == "ISTIO_MUTUAL" and tls.insecure_skip_verify:
        yield problem("TUL0449", origin.at("insecureSkipVerify"), field="insecureSkipVerify", mode=tls.mode)
