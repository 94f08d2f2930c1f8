"""What a proxy tells: Istio's standard metrics, JSON access logs, and who the peer is.

Values of the workload itself come from the proxy's environment, so the bytes are the same for every workload. What a peer
claims of itself counts only over mTLS and only if the claimed principal is the certificate's. Metrics carry everything in
one tag, which `series` lays out and reads. The formulas were tried on the real binary (docs/facts/envoy.md §4 to §6).
"""

from collections.abc import Mapping
from functools import cache
from typing import Literal

from tulle.compile.envoy import series
from tulle.compile.envoy.telling import VARIABLE
from tulle.compile.envoy.values import text_format
from tulle.model.objects import MeshSettings
from tulle.model.plan import ServiceName
from tulle.xds import api
from tulle.xds.schema import enum, struct, to_any

SOURCE = "source"
DESTINATION = "destination"
PEER_HEADER = "x-tulle-peer"
"""Carries the caller's workload between sidecars; applications never see it."""
DENIED_HEADER = "x-tulle-denied-by"
"""Names the policy that denied a request, to callers within the mesh; nobody outside sees it."""
PEER_VALUE = f"%ENVIRONMENT({VARIABLE})%"

METADATA = "tulle"
"""Name space of our metadata on clusters and endpoints."""
SERVICE = "service"
"""Key of a cluster's: `security;host;name;namespace` (`series`)."""
ENDPOINT = "peer"
"""Key of an endpoint's: `workload;…;cluster` (`series`)."""

TUNNEL = "tunnel"
"""How names of chains end whose connections carry streams."""
_TCP_END = "TcpConnectionEnd"
_PEER = "tulle.peer"
_LONGEST_PEER = 512
"""Bytes of what a peer tells of itself: it becomes a part of the names of metrics, of which there are thousands."""


def http(
    reporter: str,
    service: ServiceName | None,
    settings: MeshSettings,
    *,
    is_mesh: bool = False,
    passes_on: str = "",
) -> list["api.AccessLog"]:
    """Request metrics and the log of one HTTP chain; of requests with the header `passes_on` another chain tells."""
    loggers = [_http_metrics(reporter, service, is_mesh, protocol) for protocol in ("http", "grpc")]
    loggers.append(_log(_HTTP_LOG, reporter, None if _logs_all(settings) else _failed_requests()))
    if passes_on:
        for logger in loggers:
            own = api.HeaderMatcher(name=passes_on, present_match=True, invert_match=True)
            is_own = api.AccessLogFilter(header_filter=api.HeaderFilter(header=own))
            logger.filter.CopyFrom(_both(is_own, logger.filter) if logger.HasField("filter") else is_own)
    return loggers


def going_nowhere(reporter: str, settings: MeshSettings) -> list["api.AccessLog"]:
    """The log of a chain whose connections reach nobody: Istio's metrics count those that do."""
    return [_tcp_log(reporter, settings)]


def tcp(
    reporter: str, service: ServiceName | None, settings: MeshSettings, *, is_mesh: bool = False
) -> list["api.AccessLog"]:
    """Connection metrics and the log of one TCP chain; needs the log flushed on connect (listeners.tcp_proxy)."""
    return [*_tcp_metrics(reporter, service, is_mesh), _tcp_log(reporter, settings)]


def streams(service: ServiceName | None, settings: MeshSettings) -> list["api.AccessLog"]:
    """The same of connections that come as streams over mTLS; needs the log flushed when one is through (tunnels.ending)."""
    opened, closed = "DownstreamTunnelSuccessfullyEstablished", "DownstreamEnd"
    metrics = _tcp_metrics(DESTINATION, service, is_mesh=True, opened=opened, closed=closed)
    return [*metrics, _tcp_log(DESTINATION, settings, closed)]


@cache
def hearing_filters() -> list["api.HttpFilter"]:
    """Keep the peer's word for the metrics, over mTLS. Route tables take the header off, whoever wrote it."""
    kept = api.FilterStateValue(
        object_key=_PEER,
        factory_key="envoy.string",
        format_string=text_format(f"%REQ({PEER_HEADER}):{_LONGEST_PEER}%"),
    )
    keeping = api.HttpSetFilterState(on_request_headers=[kept])
    return [api.HttpFilter(name="envoy.filters.http.set_filter_state", typed_config=to_any(keeping))]


@cache
def telling_filters() -> list["api.HttpFilter"]:
    """In front of a server whose sidecar parses: tell it who calls. Of a cluster, because nobody else is to know."""
    told = api.HeaderValueOption(
        header=api.HeaderValue(key=PEER_HEADER, value=PEER_VALUE), append_action="OVERWRITE_IF_EXISTS_OR_ADD"
    )
    telling = api.HeaderMutation(mutations=api.Mutations(request_mutations=[{"append": told}]))
    return [
        api.HttpFilter(name="envoy.filters.http.header_mutation", typed_config=to_any(telling)),
        api.HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=to_any(api.UpstreamCodec())),
    ]


@cache
def denials() -> "api.LocalReplyConfig":
    """Authenticated callers learn which policy refused them, in a header that gateways take off again."""
    details = "%RESPONSE_CODE_DETAILS%"
    return api.LocalReplyConfig(
        mappers=[
            api.ResponseMapper(
                filter=_status("EQ", 403),
                headers_to_add=[api.HeaderValueOption(header=api.HeaderValue(key=DENIED_HEADER, value=details))],
            )
        ]
    )


@cache
def refused_connections() -> list["api.AccessLog"]:
    """Connections refused before any chain: plaintext to a STRICT port, certificates of somebody else.

    And those whose chain tells of streams, where a policy refused the whole connection before it had any.
    """
    refused = (
        "response.code_details == 'filter_chain_not_found' || connection.transport_failure_reason.contains('CERTIFICATE')"
        " || connection.transport_failure_reason.contains('PEER')"
        f" || (xds.filter_chain_name.endsWith('-{TUNNEL}') && connection.termination_details != '')"
    )
    return [_log(_TCP_LOG, "listener", when(refused))]


def _http_metrics(reporter: str, service: ServiceName | None, is_mesh: bool, protocol: str) -> "api.AccessLog":
    exchange = ("%RESPONSE_CODE%", "%RESPONSE_FLAGS%", "%GRPC_STATUS_NUMBER%")
    tag = _tag(reporter, protocol, exchange, service, is_mesh=is_mesh)
    config = api.StatsAccessLog(
        stats_scope=_scope(),
        counters=[_counter("istio_requests_total", tag, None)],
        histograms=[
            api.StatsAccessLog.Histogram(
                stat=_stat("istio_request_duration_milliseconds", tag), unit="Milliseconds", value_format="%DURATION%"
            ),
            api.StatsAccessLog.Histogram(
                stat=_stat("istio_request_bytes", tag), unit="Bytes", value_format="%BYTES_RECEIVED%"
            ),
            api.StatsAccessLog.Histogram(
                stat=_stat("istio_response_bytes", tag), unit="Bytes", value_format="%BYTES_SENT%"
            ),
        ],
    )
    return api.AccessLog(
        name="envoy.access_loggers.stats", typed_config=to_any(config), filter=_is_grpc(is_so=protocol == "grpc")
    )


def _is_grpc(*, is_so: bool) -> "api.AccessLogFilter":
    """By the request's content type (Istio). A filter costs a tenth of what an expression in the tag does."""
    header = api.HeaderMatcher(
        name="content-type",
        string_match=api.StringMatcher(prefix="application/grpc"),
        invert_match=not is_so,
        treat_missing_header_as_empty=True,
    )
    return api.AccessLogFilter(header_filter=api.HeaderFilter(header=header))


def _tcp_metrics(
    reporter: str,
    service: ServiceName | None,
    is_mesh: bool,
    *,
    opened: str = "TcpUpstreamConnected",
    closed: str = _TCP_END,
) -> list["api.AccessLog"]:
    tag = _tag(reporter, "tcp", ("", "%RESPONSE_FLAGS%", ""), service, is_mesh=is_mesh)
    at_end = api.StatsAccessLog(
        stats_scope=_scope(),
        counters=[
            _counter("istio_tcp_sent_bytes_total", tag, "%BYTES_SENT%"),
            _counter("istio_tcp_received_bytes_total", tag, "%BYTES_RECEIVED%"),
            _counter("istio_tcp_connections_closed_total", tag, None),
        ],
    )
    at_start = api.StatsAccessLog(
        stats_scope=_scope(), counters=[_counter("istio_tcp_connections_opened_total", tag, None)]
    )
    return [_at(closed, at_end), _at(opened, at_start)]


def _at(moment: str, config: "api.StatsAccessLog") -> "api.AccessLog":
    # a refused handshake or a denial reached no workload: counting its end would make closed outrun opened
    reached = _both(_log_types(moment), when("upstream.address != ''"))
    return api.AccessLog(name="envoy.access_loggers.stats", typed_config=to_any(config), filter=reached)


def when(expression: str) -> "api.AccessLogFilter":
    """By a CEL expression over attributes; costs more than any other filter."""
    return api.AccessLogFilter(
        extension_filter=api.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel",
            typed_config=to_any(api.CelAccessLogFilter(expression=expression)),
        )
    )


def _log_types(moment: str) -> "api.AccessLogFilter":
    kind = int(enum("envoy.data.accesslog.v3.AccessLogType").Value(moment))
    return api.AccessLogFilter(log_type_filter=api.LogTypeFilter(types=[kind]))


def _counter(name: str, tag: str, value: str | None) -> "api.StatsAccessLog.Counter":
    stat = _stat(name, tag)
    if value is None:
        return api.StatsAccessLog.Counter(stat=stat, value_fixed=api.UInt64Value(value=1))
    return api.StatsAccessLog.Counter(stat=stat, value_format=value)


def _stat(name: str, tag: str) -> "api.StatsAccessLog.Stat":
    return api.StatsAccessLog.Stat(name=name, tags=[api.StatsAccessLog.Tag(name=series.TAG, value_format=tag)])


def _scope() -> dict[str, object]:
    return {
        "prefix": series.SCOPE,
        "enable_eviction": True,
        "max_counters": {"value": 4000},
        "max_histograms": {"value": 2000},
    }


def _tag(
    reporter: str, protocol: str, exchange: tuple[str, str, str], service: ServiceName | None, *, is_mesh: bool
) -> str:
    """The service of an inbound port is known; a client's is that of the cluster it used."""
    if reporter == SOURCE:
        its = (
            f"%METADATA(CLUSTER:{METADATA}:{SERVICE})%",
            PEER_VALUE,
            f"%METADATA(UPSTREAM_HOST:{METADATA}:{ENDPOINT})%",
        )
        return series.column(reporter, protocol, exchange, "%UPSTREAM_PEER_URI_SAN%", *its)
    whose = f"{service.host};{service.name};{service.namespace}" if service else ""
    principal = "%DOWNSTREAM_PEER_URI_SAN%" if is_mesh else ""
    peer = f"%FILTER_STATE({_PEER}:PLAIN)%" if is_mesh and protocol != "tcp" else ""
    security = "mutual_tls" if is_mesh else "none"
    return series.column(reporter, protocol, exchange, principal, f"{security};{whose}", PEER_VALUE, peer)


_TCP_LOG: Mapping[str, str] = {
    "start_time": "%START_TIME%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "downstream_transport_failure_reason": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
    "downstream_peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "upstream_peer": "%UPSTREAM_PEER_URI_SAN%",
}
_HTTP_LOG: Mapping[str, str] = {
    **_TCP_LOG,
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "authority": "%REQ(:AUTHORITY)%",
    "response_code": "%RESPONSE_CODE%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "policy": "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%",
    "verdict": "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_engine_result)%",
}


def _tcp_log(reporter: str, settings: MeshSettings, closed: str = _TCP_END) -> "api.AccessLog":
    ended = _log_types(closed)
    return _log(_TCP_LOG, reporter, ended if _logs_all(settings) else _both(ended, _failed_connections()))


def _logs_all(settings: MeshSettings) -> bool:
    return settings.access_log == "all"


@cache
def _failed_requests() -> "api.AccessLogFilter":
    """Refused, answered with an error, or ended by something else than its answer. gRPC's errors are trailers of a 200."""
    not_ok = api.AccessLogFilter(grpc_status_filter=api.GrpcStatusFilter(statuses=["OK"], exclude=True))
    return _either(_status("GE", 400), _is_flagged(), _both(_is_grpc(is_so=True), not_ok))


@cache
def _failed_connections() -> "api.AccessLogFilter":
    return _either(_is_flagged(), when("connection.termination_details != ''"))


def _status(comparison: Literal["EQ", "GE"], status: int) -> "api.AccessLogFilter":
    value = api.RuntimeUInt32(default_value=status, runtime_key=f"tulle.status_{status}")
    compared = api.ComparisonFilter(op=comparison, value=value)
    return api.AccessLogFilter(status_code_filter=api.StatusCodeFilter(comparison=compared))


def _is_flagged() -> "api.AccessLogFilter":
    return api.AccessLogFilter(response_flag_filter=api.ResponseFlagFilter())


def _either(*filters: "api.AccessLogFilter") -> "api.AccessLogFilter":
    return api.AccessLogFilter(or_filter=api.OrFilter(filters=filters))


def _both(*filters: "api.AccessLogFilter") -> "api.AccessLogFilter":
    return api.AccessLogFilter(and_filter=api.AndFilter(filters=filters))


def _log(fields: Mapping[str, str], reporter: str, only: "api.AccessLogFilter | None" = None) -> "api.AccessLog":
    formatted = api.SubstitutionFormatString(json_format=struct({"reporter": reporter, **fields}))
    config = api.FileAccessLog(path="/dev/stdout", log_format=formatted)
    return api.AccessLog(name="envoy.access_loggers.file", typed_config=to_any(config), filter=only)
