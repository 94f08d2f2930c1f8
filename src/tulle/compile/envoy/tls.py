"""TLS contexts. Keys and bundles are secrets named here and joined when they are sent."""

from tulle.compile.envoy.values import ADS
from tulle.model.plan import OriginateTls, ServerCertificate
from tulle.xds import api
from tulle.xds.schema import to_any

LEAF_SECRET = "default"  # noqa: S105 - a resource name
"""The workload's own certificate, as Istio names it."""
ROOT_SECRET = "ROOTCA"  # noqa: S105 - a resource name
"""The bundle of roots, as Istio names it."""

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian and the official Envoy image keep the authorities everybody trusts."""

MESH_HTTP_ALPN = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
"""Offered by sidecars whose connection carries HTTP that was parsed (Istio)."""
MESH_TCP_ALPN = ("istio", "istio-peer-exchange")
"""Offered by sidecars that relay bytes (Istio)."""
TUNNEL_ALPN = "tulle-tunnel"
"""Offered by sidecars that send connections as streams of one (docs/decisions/0015)."""

_TLS_13 = api.TlsParameters(tls_minimum_protocol_version="TLSv1_3", tls_maximum_protocol_version="TLSv1_3")
_ACCEPT_UNTRUSTED = api.CertificateValidationContext.ACCEPT_UNTRUSTED


def secret(name: str) -> "api.SdsSecretConfig":
    """A secret that comes over the same stream as everything else."""
    return api.SdsSecretConfig(name=name, sds_config=ADS)


def mesh_upstream(
    sni: str, alpn: tuple[str, ...], names: tuple[str, ...], trust_domains: tuple[str, ...]
) -> "api.TransportSocket":
    """Mesh mTLS to a sidecar: TLS 1.3, our leaf, and a peer that proves one of the SPIFFE IDs (or any of the mesh's)."""
    context = api.UpstreamTlsContext(
        common_tls_context=_mesh(alpn, _uris(names) if names else _any_of(trust_domains)), sni=sni
    )
    return api.TransportSocket(name="envoy.transport_sockets.tls", typed_config=to_any(context))


def mesh_downstream(trust_domains: tuple[str, ...]) -> "api.TransportSocket":
    """Mesh mTLS from a sidecar: the peer must prove an identity of one of the mesh's trust domains."""
    # Chains are chosen by what the client offers; this list decides what is negotiated, and codecs know `h2` only. Of a
    # client that offers `istio` alone nothing is: the codec then goes by the first bytes, which are the workload's own.
    alpn = ("h2", "http/1.1")
    context = api.DownstreamTlsContext(
        common_tls_context=_mesh(alpn, _any_of(trust_domains)),
        require_client_certificate=api.BoolValue(value=True),
    )
    return api.TransportSocket(name="envoy.transport_sockets.tls", typed_config=to_any(context))


def server(certificate: ServerCertificate, alpn: tuple[str, ...]) -> "api.TransportSocket":
    """TLS that a gateway terminates with the user's certificate."""
    parameters = api.TlsParameters(
        tls_minimum_protocol_version=_version(certificate.min_version, "TLSv1_2"),
        tls_maximum_protocol_version=_version(certificate.max_version, "TLSv1_3"),
        cipher_suites=list(certificate.cipher_suites),
    )
    common = api.CommonTlsContext(
        tls_params=parameters,
        alpn_protocols=list(alpn),
        tls_certificate_sds_secret_configs=[secret(certificate.credential)],
    )
    if certificate.validation:
        common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(secret(certificate.validation))
        context_of_names = common.combined_validation_context.default_validation_context
        context_of_names.SetInParent()  # required, also without names
        context_of_names.match_typed_subject_alt_names.extend(_exactly(name) for name in certificate.subject_alt_names)
    elif certificate.client_roots:
        common.validation_context.trusted_ca.inline_string = certificate.client_roots
        if certificate.takes_anybody:
            common.validation_context.trust_chain_verification = _ACCEPT_UNTRUSTED
    is_asked = bool(certificate.validation or certificate.client_roots) and not certificate.takes_anybody
    context = api.DownstreamTlsContext(
        common_tls_context=common, require_client_certificate=api.BoolValue(value=is_asked)
    )
    return api.TransportSocket(name="envoy.transport_sockets.tls", typed_config=to_any(context))


def originate(tls: OriginateTls, alpn: tuple[str, ...]) -> "api.TransportSocket":
    """TLS that the user configured towards a destination."""
    common = api.CommonTlsContext(
        alpn_protocols=list(alpn),
        tls_certificate_sds_secret_configs=[secret(tls.certificate)] if tls.certificate else [],
    )
    if not tls.insecure_skip_verify:
        validation = common.validation_context
        if tls.roots:
            validation.trusted_ca.inline_string = tls.roots
        else:
            validation.trusted_ca.filename = SYSTEM_ROOTS
        for name in tls.subject_alt_names or filter(None, (tls.sni,)):
            validation.match_typed_subject_alt_names.append(_exactly(name))
    context = api.UpstreamTlsContext(common_tls_context=common, sni=tls.sni)
    return api.TransportSocket(name="envoy.transport_sockets.tls", typed_config=to_any(context))


def plain() -> "api.TransportSocket":
    """No TLS."""
    return api.TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=to_any(api.RawBuffer()))


def _mesh(alpn: tuple[str, ...], names: list["api.SubjectAltNameMatcher"]) -> "api.CommonTlsContext":
    return api.CommonTlsContext(
        tls_params=_TLS_13,
        alpn_protocols=list(alpn),
        tls_certificate_sds_secret_configs=[secret(LEAF_SECRET)],
        combined_validation_context=api.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=api.CertificateValidationContext(match_typed_subject_alt_names=names),
            validation_context_sds_secret_config=secret(ROOT_SECRET),
        ),
    )


def _version(name: str, otherwise: str) -> int:
    return int(api.TlsParameters.TlsProtocol.Value(name or otherwise))


def _exactly(name: str) -> "api.SubjectAltNameMatcher":
    matcher = api.StringMatcher(exact=name)
    if "://" in name:
        return api.SubjectAltNameMatcher(san_type="URI", matcher=matcher)
    return api.SubjectAltNameMatcher(san_type="DNS", matcher=matcher)


def _uris(names: tuple[str, ...]) -> list["api.SubjectAltNameMatcher"]:
    return [api.SubjectAltNameMatcher(san_type="URI", matcher=api.StringMatcher(exact=name)) for name in names]


def _any_of(trust_domains: tuple[str, ...]) -> list["api.SubjectAltNameMatcher"]:
    return [
        api.SubjectAltNameMatcher(san_type="URI", matcher=api.StringMatcher(prefix=f"spiffe://{domain}/"))
        for domain in trust_domains
    ]
