"""What a proxy tells: Istio's standard metrics, JSON access logs, and who the peer is.

Values of the workload itself come from the proxy's environment, so the bytes are the same for every workload. What a peer
claims of itself counts only over mTLS and only if the claimed principal is the certificate's. The formulas were tried on
the real binary (docs/facts/envoy.md §4 to §6).
"""

from collections.abc import Mapping
from functools import cache

from tulle.model.plan import ServiceName
from tulle.xds import api
from tulle.xds.schema import enum, struct, to_any

SOURCE = "source"
DESTINATION = "destination"
PEER_HEADER = "x-tulle-peer"
"""Carries the caller's workload between sidecars; applications never see it."""
DENIED_HEADER = "x-tulle-denied-by"
"""Names the policy that denied a request, to callers within the mesh; nobody outside sees it."""

_PEER = "tulle.peer"
_OWN = {
    "workload": "TULLE_WORKLOAD",
    "namespace": "TULLE_NAMESPACE",
    "app": "TULLE_APP",
    "version": "TULLE_VERSION",
    "canonical": "TULLE_CANONICAL",
    "revision": "TULLE_REVISION",
    "cluster": "TULLE_CLUSTER",
}
"""What a workload tells of itself, and the variable of the proxy's environment it comes from."""
PRINCIPAL_VARIABLE = "TULLE_PRINCIPAL"

_LABELS = {
    "workload": "workload",
    "workload_namespace": "namespace",
    "app": "app",
    "version": "version",
    "canonical_service": "canonical",
    "canonical_revision": "revision",
    "cluster": "cluster",
}
"""Istio's label after `source_` or `destination_`, and our word."""

PEER_VALUE = f"%ENVIRONMENT({PRINCIPAL_VARIABLE})%;" + "".join(
    f"{name}=%ENVIRONMENT({variable})%;" for name, variable in _OWN.items()
)
_UNKNOWN_PEER = ";" + "".join(f"{name}=unknown;" for name in _OWN)
_TRUSTED_PEER = (
    f"%CEL('{PEER_HEADER}' in request.headers"
    f" && request.headers['{PEER_HEADER}'].startsWith(connection.uri_san_peer_certificate)"
    f" ? request.headers['{PEER_HEADER}'] : '{_UNKNOWN_PEER}')%"
)
"""The header where it begins with the principal that the certificate proves. One expression per request: as a condition of
every label of every metric it was a third of what a request cost at the server."""

_IS_GRPC = "'content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc')"
_GRPC_STATUS = "%GRPC_STATUS_NUMBER%"


def http(reporter: str, service: ServiceName | None, *, is_mesh: bool = False) -> list["api.AccessLog"]:
    """Request metrics and the log of one HTTP chain."""
    return [_http_metrics(reporter, service, is_mesh), _log(_HTTP_LOG, reporter)]


def going_nowhere(reporter: str) -> list["api.AccessLog"]:
    """The log of a chain whose connections reach nobody: Istio's metrics count those that do."""
    return [_tcp_log(reporter)]


def tcp(reporter: str, service: ServiceName | None, *, is_mesh: bool = False) -> list["api.AccessLog"]:
    """Connection metrics and the log of one TCP chain; needs the log flushed on connect (listeners.tcp_proxy)."""
    return [*_tcp_metrics(reporter, service, is_mesh), _tcp_log(reporter)]


@cache
def peer_filters(*, is_mesh: bool) -> list["api.HttpFilter"]:
    """Take the peer's word off the request: into metadata over mTLS, away otherwise."""
    if not is_mesh:
        return [api.HttpFilter(name="envoy.filters.http.header_mutation", typed_config=to_any(_without_peer()))]
    names = tuple(_OWN)
    rules = [
        api.HeaderToMetadata.Rule(
            header=PEER_HEADER,
            on_header_present=api.HeaderToMetadata.KeyValuePair(
                metadata_namespace=_PEER,
                key=name,
                regex_value_rewrite=api.RegexMatchAndSubstitute(
                    pattern=api.RegexMatcher(regex=f"^(?:.*;)?{name}=([^;]*);.*$|^.*$"), substitution="\\1"
                ),
            ),
            remove=name == names[-1],
        )
        for name in names
    ]
    judged = api.HeaderValueOption(
        header=api.HeaderValue(key=PEER_HEADER, value=_TRUSTED_PEER), append_action="OVERWRITE_IF_EXISTS_OR_ADD"
    )
    judging = api.HeaderMutation(mutations=api.Mutations(request_mutations=[{"append": judged}]))
    taking = api.HeaderToMetadata(request_rules=rules)
    return [
        api.HttpFilter(name="envoy.filters.http.header_mutation", typed_config=to_any(judging)),
        api.HttpFilter(name="envoy.filters.http.header_to_metadata", typed_config=to_any(taking)),
    ]


@cache
def leaving_filters() -> list["api.HttpFilter"]:
    """In front of a server that no sidecar parses for: applications do not see who calls."""
    return [
        api.HttpFilter(name="envoy.filters.http.header_mutation", typed_config=to_any(_without_peer())),
        api.HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=to_any(api.UpstreamCodec())),
    ]


def _without_peer() -> "api.HeaderMutation":
    return api.HeaderMutation(mutations=api.Mutations(request_mutations=[{"remove": PEER_HEADER}]))


@cache
def denials() -> "api.LocalReplyConfig":
    """Authenticated callers learn which policy refused them, in a header that gateways take off again."""
    is_denied = api.AccessLogFilter(
        status_code_filter=api.StatusCodeFilter(
            comparison=api.ComparisonFilter(
                op="EQ", value=api.RuntimeUInt32(default_value=403, runtime_key="tulle.denied")
            )
        )
    )
    details = "%RESPONSE_CODE_DETAILS%"
    return api.LocalReplyConfig(
        mappers=[
            api.ResponseMapper(
                filter=is_denied,
                headers_to_add=[api.HeaderValueOption(header=api.HeaderValue(key=DENIED_HEADER, value=details))],
            )
        ]
    )


@cache
def refused_connections() -> list["api.AccessLog"]:
    """Connections refused before any chain: plaintext to a STRICT port, certificates of somebody else."""
    refused = (
        "response.code_details == 'filter_chain_not_found' || connection.transport_failure_reason.contains('CERTIFICATE')"
        " || connection.transport_failure_reason.contains('PEER')"
    )
    return [_log(_TCP_LOG, "listener", _when(refused))]


def _http_metrics(reporter: str, service: ServiceName | None, is_mesh: bool) -> "api.AccessLog":
    tags = _tags(reporter, service, is_mesh=is_mesh, is_http=True)
    config = api.StatsAccessLog(
        stats_scope=_scope(),
        counters=[_counter("istio_requests_total", tags, None)],
        histograms=[
            api.StatsAccessLog.Histogram(
                stat=_stat("istio_request_duration_milliseconds", tags), unit="Milliseconds", value_format="%DURATION%"
            ),
            api.StatsAccessLog.Histogram(
                stat=_stat("istio_request_bytes", tags), unit="Bytes", value_format="%BYTES_RECEIVED%"
            ),
            api.StatsAccessLog.Histogram(
                stat=_stat("istio_response_bytes", tags), unit="Bytes", value_format="%BYTES_SENT%"
            ),
        ],
    )
    return api.AccessLog(name="envoy.access_loggers.stats", typed_config=to_any(config))


def _tcp_metrics(reporter: str, service: ServiceName | None, is_mesh: bool) -> list["api.AccessLog"]:
    tags = _tags(reporter, service, is_mesh=is_mesh, is_http=False)
    closed = api.StatsAccessLog(
        stats_scope=_scope(),
        counters=[
            _counter("istio_tcp_sent_bytes_total", tags, "%BYTES_SENT%"),
            _counter("istio_tcp_received_bytes_total", tags, "%BYTES_RECEIVED%"),
            _counter("istio_tcp_connections_closed_total", tags, None),
        ],
    )
    opened = api.StatsAccessLog(
        stats_scope=_scope(), counters=[_counter("istio_tcp_connections_opened_total", tags, None)]
    )
    return [_at("TcpConnectionEnd", closed), _at("TcpUpstreamConnected", opened)]


def _at(moment: str, config: "api.StatsAccessLog") -> "api.AccessLog":
    only = api.AccessLogFilter(log_type_filter=api.LogTypeFilter(types=[_log_type(moment)]))
    # a refused handshake or a denial reached no workload: counting its end would make closed outrun opened
    reached = api.AccessLogFilter(and_filter=api.AndFilter(filters=[only, _when("upstream.address != ''")]))
    return api.AccessLog(name="envoy.access_loggers.stats", typed_config=to_any(config), filter=reached)


def _when(expression: str) -> "api.AccessLogFilter":
    return api.AccessLogFilter(
        extension_filter=api.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel",
            typed_config=to_any(api.CelAccessLogFilter(expression=expression)),
        )
    )


def _log_type(moment: str) -> int:
    return int(enum("envoy.data.accesslog.v3.AccessLogType").Value(moment))


def _counter(name: str, tags: list["api.StatsAccessLog.Tag"], value: str | None) -> "api.StatsAccessLog.Counter":
    stat = _stat(name, tags)
    if value is None:
        return api.StatsAccessLog.Counter(stat=stat, value_fixed=api.UInt64Value(value=1))
    return api.StatsAccessLog.Counter(stat=stat, value_format=value)


def _stat(name: str, tags: list["api.StatsAccessLog.Tag"]) -> "api.StatsAccessLog.Stat":
    return api.StatsAccessLog.Stat(name=name, tags=tags)


def _scope() -> dict[str, object]:
    """The prefix makes Envoy print `istio_…` instead of `envoy_istio_…` (docs/facts/envoy.md §5)."""
    return {
        "prefix": "wasmcustom",
        "enable_eviction": True,
        "max_counters": {"value": 4000},
        "max_histograms": {"value": 2000},
    }


def _tags(
    reporter: str, service: ServiceName | None, *, is_mesh: bool, is_http: bool
) -> list["api.StatsAccessLog.Tag"]:
    values: dict[str, str] = {"reporter": reporter}
    if reporter == SOURCE:
        values |= {f"source_{label}": _own(word) for label, word in _LABELS.items()}
        values |= {f"destination_{label}": _endpoint(word) for label, word in _LABELS.items()}
        values["source_principal"] = "%UPSTREAM_LOCAL_URI_SAN%"
        values["destination_principal"] = "%UPSTREAM_PEER_URI_SAN%"
        values["connection_security_policy"] = _of_cluster("security")
    else:
        peer = _peer if is_mesh and is_http else _unknown
        values |= {f"source_{label}": peer(word) for label, word in _LABELS.items()}
        values |= {f"destination_{label}": _own(word) for label, word in _LABELS.items()}
        values["source_principal"] = "%DOWNSTREAM_PEER_URI_SAN%" if is_mesh else "unknown"
        values["destination_principal"] = "%DOWNSTREAM_LOCAL_URI_SAN%" if is_mesh else "unknown"
        values["connection_security_policy"] = "mutual_tls" if is_mesh else "none"
    values |= _service(service)
    if is_http:
        values["request_protocol"] = f"%CEL({_IS_GRPC} ? 'grpc' : 'http')%"
        values["response_code"] = "%RESPONSE_CODE%"
        values["grpc_response_status"] = _GRPC_STATUS
    else:
        values["request_protocol"] = "tcp"
    values["response_flags"] = "%RESPONSE_FLAGS%"
    return [api.StatsAccessLog.Tag(name=name, value_format=value) for name, value in values.items()]


def _service(service: ServiceName | None) -> dict[str, str]:
    """The service of an inbound port is known; a client's is that of the cluster it used."""
    if service is not None:
        return {
            "destination_service": service.host,
            "destination_service_name": service.name,
            "destination_service_namespace": service.namespace,
        }
    return {
        "destination_service": _of_cluster("service_host"),
        "destination_service_name": _of_cluster("service_name"),
        "destination_service_namespace": _of_cluster("service_namespace"),
    }


def _own(word: str) -> str:
    return f"%ENVIRONMENT({_OWN[word]})%"


def _endpoint(word: str) -> str:
    return f"%METADATA(UPSTREAM_HOST:tulle:{word})%"


def _of_cluster(word: str) -> str:
    """Every cluster that a request may go to says something: an expression would cost more than the rest of the label."""
    return f"%METADATA(CLUSTER:tulle:{word})%"


def _peer(word: str) -> str:
    return f"%DYNAMIC_METADATA({_PEER}:{word})%"


def _unknown(_: str) -> str:
    return "unknown"


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


def _tcp_log(reporter: str) -> "api.AccessLog":
    ended = api.AccessLogFilter(log_type_filter=api.LogTypeFilter(types=[_log_type("TcpConnectionEnd")]))
    return _log(_TCP_LOG, reporter, ended)


def _log(fields: Mapping[str, str], reporter: str, only: "api.AccessLogFilter | None" = None) -> "api.AccessLog":
    formatted = api.SubstitutionFormatString(json_format=struct({"reporter": reporter, **fields}))
    config = api.FileAccessLog(path="/dev/stdout", log_format=formatted)
    return api.AccessLog(name="envoy.access_loggers.file", typed_config=to_any(config), filter=only)
