"""The Envoy messages we use, under short names: `api.Cluster(name=..., type="EDS")`.

`MESSAGES` and `ENUMS` are the whole vocabulary: to use one more message add its name here and run
`python tools/gen_api.py`, which writes the types beside this file (`api.pyi`). Classes come from `schema.py` on first
use. Construction takes keywords only and ignores `None`; a nested message is given as message or dict, a duration as
`timedelta` too, an enum by name. Helpers that need more than a name (`Any`, `Struct`) are in `schema.py`.
"""

import typing

from tulle.xds import schema

_EXTENSIONS = "envoy.extensions."

# package -> messages; `Name:Alias` where the short name is taken or says too little.
_BY_PACKAGE = {
    "google.protobuf": "Any Duration Timestamp Struct Value ListValue Empty FieldMask "
    "BoolValue DoubleValue FloatValue Int32Value Int64Value UInt32Value UInt64Value StringValue BytesValue",
    "google.rpc": "Status",
    "xds.core.v3": "CidrRange:XdsCidrRange TypedExtensionConfig:XdsTypedExtensionConfig CollectionEntry",
    "xds.type.v3": "TypedStruct CelExpression",
    "cel.expr": "ParsedExpr",
    "xds.type.matcher.v3": "Matcher CelMatcher IPMatcher StringMatcher:XdsStringMatcher ServerNameMatcher",
    "envoy.type.v3": "Percent FractionalPercent Int64Range Int32Range DoubleRange TokenBucket HttpStatus HashPolicy",
    "envoy.type.matcher.v3": "StringMatcher ListStringMatcher RegexMatcher RegexMatchAndSubstitute MetadataMatcher "
    "ValueMatcher ListMatcher OrMatcher PathMatcher DoubleMatcher FilterStateMatcher AddressMatcher "
    "HttpRequestHeaderMatchInput",
    "envoy.type.metadata.v3": "MetadataKey MetadataKind",
    "envoy.type.tracing.v3": "CustomTag",
    "envoy.type.http.v3": "PathTransformation",
    "envoy.service.discovery.v3": "DiscoveryRequest DiscoveryResponse DeltaDiscoveryRequest DeltaDiscoveryResponse "
    "Resource ResourceLocator ResourceName ResourceError AdsDummy",
    "envoy.config.core.v3": "Node Metadata Locality Address SocketAddress Pipe EnvoyInternalAddress CidrRange BindConfig "
    "ExtraSourceAddress TcpKeepalive SocketOption SocketOptionsOverride TypedExtensionConfig TransportSocket "
    "ConfigSource AggregatedConfigSource SelfConfigSource ApiConfigSource PathConfigSource ExtensionConfigSource "
    "RateLimitSettings GrpcService HttpService HttpUri DataSource AsyncDataSource RemoteDataSource WatchedDirectory "
    "SubstitutionFormatString JsonFormatOptions HeaderValue HeaderValueOption HeaderMap KeyValue KeyValuePair "
    "KeyValueAppend KeyValueMutation QueryParameter RuntimeUInt32 RuntimeDouble RuntimePercent RuntimeFeatureFlag "
    "RuntimeFractionalPercent ControlPlane BackoffStrategy RetryPolicy:CoreRetryPolicy HealthCheck HealthStatusSet "
    "TcpProtocolOptions HttpProtocolOptions:CoreHttpProtocolOptions UpstreamHttpProtocolOptions Http1ProtocolOptions "
    "Http2ProtocolOptions Http3ProtocolOptions GrpcProtocolOptions KeepaliveSettings QuicProtocolOptions "
    "AlternateProtocolsCacheOptions SchemeHeaderTransformation DnsResolverOptions DnsResolutionConfig "
    "ProxyProtocolConfig ProxyProtocolPassThroughTLVs TlvEntry EventServiceConfig BuildVersion Extension UdpSocketConfig",
    "envoy.config.accesslog.v3": "AccessLog AccessLogFilter ComparisonFilter StatusCodeFilter DurationFilter "
    "NotHealthCheckFilter RuntimeFilter AndFilter OrFilter HeaderFilter ResponseFlagFilter GrpcStatusFilter "
    "MetadataFilter LogTypeFilter ExtensionFilter TraceableFilter",
    "envoy.config.bootstrap.v3": "Bootstrap Admin ClusterManager Watchdogs Watchdog Runtime RuntimeLayer LayeredRuntime "
    "CustomInlineHeader MemoryAllocatorManager FatalAction",
    "envoy.config.cluster.v3": "Cluster CircuitBreakers OutlierDetection LoadBalancingPolicy UpstreamConnectionOptions "
    "TrackClusterStats Filter:UpstreamFilter",
    "envoy.config.endpoint.v3": "ClusterLoadAssignment Endpoint LbEndpoint LocalityLbEndpoints LedsClusterLocalityConfig",
    "envoy.config.listener.v3": "Listener AdditionalAddress Filter FilterChain FilterChainMatch ListenerFilter "
    "ListenerFilterChainMatchPredicate UdpListenerConfig ApiListener",
    "envoy.config.metrics.v3": "StatsSink StatsConfig StatsMatcher TagSpecifier HistogramBucketSettings",
    "envoy.config.overload.v3": "OverloadManager ResourceMonitor OverloadAction Trigger ThresholdTrigger ScaledTrigger",
    "envoy.config.rbac.v3": "RBAC Policy Permission Principal Action:RBACAction SourcedMetadata",
    "envoy.config.route.v3": "RouteConfiguration Vhds VirtualHost Route RouteMatch RouteAction RouteList WeightedCluster "
    "ClusterSpecifierPlugin FilterAction FilterConfig CorsPolicy:RouteCorsPolicy RetryPolicy HedgePolicy RedirectAction "
    "DirectResponseAction NonForwardingAction Decorator Tracing VirtualCluster RateLimit HeaderMatcher "
    "QueryParameterMatcher CookieMatcher InternalRedirectPolicy ScopedRouteConfiguration",
    "envoy.config.trace.v3": "Tracing:BootstrapTracing OpenTelemetryConfig ZipkinConfig",
    _EXTENSIONS + "access_loggers.file.v3": "FileAccessLog",
    _EXTENSIONS + "access_loggers.stream.v3": "StdoutAccessLog StderrAccessLog",
    _EXTENSIONS + "access_loggers.stats.v3": "Config:StatsAccessLog",
    _EXTENSIONS + "access_loggers.grpc.v3": "HttpGrpcAccessLogConfig TcpGrpcAccessLogConfig CommonGrpcAccessLogConfig",
    _EXTENSIONS + "access_loggers.open_telemetry.v3": "OpenTelemetryAccessLogConfig",
    _EXTENSIONS + "bootstrap.internal_listener.v3": "InternalListener",
    _EXTENSIONS + "clusters.dns.v3": "DnsCluster",
    _EXTENSIONS + "clusters.dynamic_forward_proxy.v3": "ClusterConfig:DynamicForwardProxyCluster",
    _EXTENSIONS + "common.dynamic_forward_proxy.v3": "DnsCacheConfig",
    _EXTENSIONS + "common.ratelimit.v3": "RateLimitDescriptor LocalRateLimitDescriptor LocalClusterRateLimit",
    _EXTENSIONS + "common.matching.v3": "ExtensionWithMatcher ExtensionWithMatcherPerRoute",
    _EXTENSIONS + "filters.common.fault.v3": "FaultDelay FaultRateLimit",
    _EXTENSIONS + "filters.common.set_filter_state.v3": "FilterStateValue",
    _EXTENSIONS + "filters.http.buffer.v3": "Buffer BufferPerRoute",
    _EXTENSIONS + "filters.http.compressor.v3": "Compressor CompressorPerRoute",
    _EXTENSIONS + "filters.http.cors.v3": "Cors CorsPolicy",
    _EXTENSIONS + "filters.http.credential_injector.v3": "CredentialInjector",
    _EXTENSIONS + "filters.http.dynamic_forward_proxy.v3": "FilterConfig:DynamicForwardProxy",
    _EXTENSIONS + "filters.http.ext_authz.v3": "ExtAuthz ExtAuthzPerRoute CheckSettings",
    _EXTENSIONS + "filters.http.fault.v3": "HTTPFault:Fault FaultAbort",
    _EXTENSIONS + "filters.http.grpc_stats.v3": "FilterConfig:GrpcStats",
    _EXTENSIONS + "filters.http.grpc_web.v3": "GrpcWeb",
    _EXTENSIONS + "filters.http.header_mutation.v3": "HeaderMutation HeaderMutationPerRoute Mutations",
    _EXTENSIONS + "filters.http.header_to_metadata.v3": "Config:HeaderToMetadata",
    _EXTENSIONS + "filters.http.health_check.v3": "HealthCheck:HttpHealthCheckFilter",
    _EXTENSIONS + "filters.http.jwt_authn.v3": "JwtAuthentication JwtProvider JwtHeader JwtRequirement RequirementRule "
    "JwtClaimToHeader RemoteJwks JwksAsyncFetch JwtCacheConfig JwtRequirementOrList JwtRequirementAndList "
    "ProviderWithAudiences PerRouteConfig:JwtPerRoute",
    _EXTENSIONS + "filters.http.local_ratelimit.v3": "LocalRateLimit",
    _EXTENSIONS + "filters.http.lua.v3": "Lua LuaPerRoute",
    _EXTENSIONS + "filters.http.on_demand.v3": "OnDemand OnDemandCds PerRouteConfig:OnDemandPerRoute",
    _EXTENSIONS + "filters.http.ratelimit.v3": "RateLimit:HttpRateLimit RateLimitPerRoute",
    _EXTENSIONS + "filters.http.rbac.v3": "RBAC:HttpRBAC RBACPerRoute",
    _EXTENSIONS + "filters.http.router.v3": "Router",
    _EXTENSIONS + "filters.http.set_filter_state.v3": "Config:HttpSetFilterState",
    _EXTENSIONS + "filters.http.set_metadata.v3": "Config:SetMetadata",
    _EXTENSIONS + "filters.http.upstream_codec.v3": "UpstreamCodec",
    _EXTENSIONS + "filters.http.wasm.v3": "Wasm:HttpWasm",
    _EXTENSIONS + "filters.listener.http_inspector.v3": "HttpInspector",
    _EXTENSIONS + "filters.listener.original_dst.v3": "OriginalDst",
    _EXTENSIONS + "filters.listener.proxy_protocol.v3": "ProxyProtocol",
    _EXTENSIONS + "filters.listener.tls_inspector.v3": "TlsInspector",
    _EXTENSIONS + "filters.listener.set_filter_state.v3": "Config:ListenerSetFilterState",
    _EXTENSIONS + "filters.network.echo.v3": "Echo",
    _EXTENSIONS + "filters.network.direct_response.v3": "Config:NetworkDirectResponse",
    _EXTENSIONS + "filters.network.http_connection_manager.v3": "HttpConnectionManager HttpFilter Rds ScopedRds "
    "ScopedRoutes LocalReplyConfig ResponseMapper RequestIDExtension",
    _EXTENSIONS + "filters.network.local_ratelimit.v3": "LocalRateLimit:NetworkLocalRateLimit",
    _EXTENSIONS + "filters.network.rbac.v3": "RBAC:NetworkRBAC",
    _EXTENSIONS + "filters.network.set_filter_state.v3": "Config:NetworkSetFilterState",
    _EXTENSIONS + "filters.network.sni_cluster.v3": "SniCluster",
    _EXTENSIONS + "filters.network.tcp_proxy.v3": "TcpProxy",
    _EXTENSIONS + "filters.udp.dns_filter.v3": "DnsFilterConfig",
    _EXTENSIONS + "formatter.cel.v3": "Cel:FormatterCEL",
    _EXTENSIONS + "formatter.file_content.v3": "FileContent:FormatterFileContent",
    _EXTENSIONS + "formatter.metadata.v3": "Metadata:FormatterMetadata",
    _EXTENSIONS + "formatter.req_without_query.v3": "ReqWithoutQuery:FormatterReqWithoutQuery",
    _EXTENSIONS + "access_loggers.filters.cel.v3": "ExpressionFilter:CelAccessLogFilter",
    _EXTENSIONS + "health_check.event_sinks.file.v3": "HealthCheckEventFileSink",
    _EXTENSIONS + "http.early_header_mutation.header_mutation.v3": "HeaderMutation:EarlyHeaderMutation",
    _EXTENSIONS + "http.injected_credentials.generic.v3": "Generic:GenericCredential",
    _EXTENSIONS + "http.original_ip_detection.xff.v3": "XffConfig XffTrustedCidrs",
    _EXTENSIONS + "http.stateful_session.cookie.v3": "CookieBasedSessionState",
    _EXTENSIONS + "filters.http.stateful_session.v3": "StatefulSession StatefulSessionPerRoute",
    _EXTENSIONS + "load_balancing_policies.cluster_provided.v3": "ClusterProvided",
    _EXTENSIONS + "load_balancing_policies.common.v3": "LocalityLbConfig SlowStartConfig ConsistentHashingLbConfig",
    _EXTENSIONS + "load_balancing_policies.least_request.v3": "LeastRequest",
    _EXTENSIONS + "load_balancing_policies.maglev.v3": "Maglev",
    _EXTENSIONS + "load_balancing_policies.random.v3": "Random",
    _EXTENSIONS + "load_balancing_policies.ring_hash.v3": "RingHash",
    _EXTENSIONS + "load_balancing_policies.round_robin.v3": "RoundRobin",
    _EXTENSIONS + "matching.common_inputs.network.v3": "DestinationIPInput DestinationPortInput SourceIPInput "
    "SourcePortInput DirectSourceIPInput SourceTypeInput ServerNameInput TransportProtocolInput "
    "ApplicationProtocolInput FilterStateInput",
    _EXTENSIONS + "rbac.principals.mtls_authenticated.v3": "Config:MtlsAuthenticated",
    _EXTENSIONS + "resource_monitors.downstream_connections.v3": "DownstreamConnectionsConfig",
    _EXTENSIONS + "retry.host.previous_hosts.v3": "PreviousHostsPredicate",
    _EXTENSIONS + "retry.priority.previous_priorities.v3": "PreviousPrioritiesConfig",
    _EXTENSIONS + "stat_sinks.open_telemetry.v3": "SinkConfig:OpenTelemetrySink",
    _EXTENSIONS + "transport_sockets.internal_upstream.v3": "InternalUpstreamTransport",
    _EXTENSIONS + "transport_sockets.proxy_protocol.v3": "ProxyProtocolUpstreamTransport",
    _EXTENSIONS + "transport_sockets.raw_buffer.v3": "RawBuffer",
    _EXTENSIONS + "transport_sockets.tls.v3": "CommonTlsContext DownstreamTlsContext UpstreamTlsContext TlsParameters "
    "TlsCertificate TlsSessionTicketKeys CertificateValidationContext SubjectAltNameMatcher SdsSecretConfig Secret "
    "GenericSecret SPIFFECertValidatorConfig",
    _EXTENSIONS + "upstreams.http.v3": "HttpProtocolOptions",
    _EXTENSIONS + "upstreams.http.generic.v3": "GenericConnectionPoolProto",
    _EXTENSIONS + "upstreams.tcp.v3": "TcpProtocolOptions:UpstreamTcpProtocolOptions",
    _EXTENSIONS + "wasm.v3": "PluginConfig:WasmPluginConfig VmConfig:WasmVmConfig WasmService",
}

ENUMS = {
    "CodecClientType": "envoy.type.v3.CodecClientType",
    "DnsLookupFamily": "envoy.extensions.clusters.common.dns.v3.DnsLookupFamily",
    "HealthStatus": "envoy.config.core.v3.HealthStatus",
    "RateLimitUnit": "envoy.type.v3.RateLimitUnit",
    "RequestMethod": "envoy.config.core.v3.RequestMethod",
    "RoutingPriority": "envoy.config.core.v3.RoutingPriority",
    "StatusCode": "envoy.type.v3.StatusCode",
    "TrafficDirection": "envoy.config.core.v3.TrafficDirection",
    "UpstreamConnectMode": "envoy.extensions.filters.network.tcp_proxy.v3.UpstreamConnectMode",
}
"""Short name -> full name of the top-level enums; enums nested in messages are attributes of their message."""


def _named() -> dict[str, str]:
    table: dict[str, str] = {}
    for package, entries in _BY_PACKAGE.items():
        for entry in entries.split():
            name, _, alias = entry.partition(":")
            short = alias or name
            if short in table or short in ENUMS:
                raise ValueError(f"{short} names two messages")
            table[short] = f"{package}.{name}"
    return table


MESSAGES = _named()
"""Short name -> full name of every message this module offers."""


def __getattr__(name: str) -> typing.Any:
    if name in MESSAGES:
        found: typing.Any = schema.message(MESSAGES[name])
    elif name in ENUMS:
        found = schema.enum(ENUMS[name])
    else:
        raise AttributeError(f"module {__name__} has no {name}: add it to api.MESSAGES")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*MESSAGES, *ENUMS])
