"""What is wrong with a Gateway that types cannot say. Source: Istio's validation webhook."""

from collections.abc import Iterator
from typing import Final

from tulle.dialects.istio import schema_gateway as written
from tulle.dialects.istio.check_words import is_cidr, is_host, is_label
from tulle.dialects.istio.gateway import PROTOCOLS
from tulle.model.intent import PortProtocol
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

_VERSIONS: Final = ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
_CIPHERS: Final = frozenset(
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
    ]
)
_TLS_PROTOCOLS: Final = (PortProtocol.HTTPS, PortProtocol.TLS)


def gateway_object_problems(spec: written.Gateway, origin: Origin) -> tuple[Problem, ...]:
    """Every problem of one Gateway; `origin` is that of its spec."""
    return tuple(_problems(spec, origin))


def _problems(spec: written.Gateway, origin: Origin) -> Iterator[Problem]:
    if not spec.servers:
        yield problem("TUL0701", origin)
    if not spec.selector:
        yield problem("TUL0714", origin)
    names: set[str] = set()
    protocols: dict[tuple[str, int], PortProtocol] = {}
    for index, server in enumerate(spec.servers):
        place = origin.at("servers", index)
        yield from _server(server, place)
        name = server.port.name
        if name and name in names:
            yield problem("TUL0705", place.at("port", "name"), name=name)
        names.add(name)
        protocol = PROTOCOLS.get(server.port.protocol.upper())
        first = protocols.setdefault((server.bind, server.port.number), protocol or PortProtocol.AUTO)
        if protocol is not None and _family(first) != _family(protocol):
            yield problem(
                "TUL0713", place.at("port"), port=server.port.number, first=first.value, second=protocol.value
            )


def _family(protocol: PortProtocol) -> str:
    if protocol.is_http:
        return "http"
    return "tls" if protocol in _TLS_PROTOCOLS else protocol.value


def _server(server: written.Server, origin: Origin) -> Iterator[Problem]:
    if not server.hosts:
        yield problem("TUL0702", origin)
    for index, host in enumerate(server.hosts):
        place, slash, name = host.rpartition("/")
        is_place = not slash or place in (".", "*") or is_label(place)
        if not is_place or not is_host(name):
            yield problem("TUL0703", origin.at("hosts", index), host=host[:120])
    if server.bind and not server.bind.startswith("unix://") and (not is_cidr(server.bind) or "/" in server.bind):
        yield problem("TUL0712", origin.at("bind"), value=server.bind[:80])
    if server.bind.startswith("unix://"):
        yield problem("TUL0712", origin.at("bind"), value=server.bind[:80])
    protocol = PROTOCOLS.get(server.port.protocol.upper())
    if protocol is None:
        choices = ", ".join(PROTOCOLS)
        yield problem("TUL0704", origin.at("port", "protocol"), value=server.port.protocol[:40], choices=choices)
        return
    yield from _tls(server.tls, protocol, origin)


def _tls(tls: written.ServerTls | None, protocol: PortProtocol, origin: Origin) -> Iterator[Problem]:
    if protocol not in _TLS_PROTOCOLS:
        if tls is not None and (not protocol.is_http or tls != written.ServerTls(https_redirect=tls.https_redirect)):
            yield problem("TUL0706", origin.at("tls"), protocol=protocol.value)
        return
    if tls is None:
        yield problem("TUL0707", origin, protocol=protocol.value)
        return
    place = origin.at("tls")
    if tls.https_redirect:
        yield problem("TUL0709", place.at("httpsRedirect"))
    if tls.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL") and not tls.credential_name:
        yield problem("TUL0708", place, mode=tls.mode)
    if tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL") and tls.credential_name:
        yield problem("TUL0449", place.at("credentialName"), field="credentialName", mode=tls.mode)
    if tls.mode == "OPTIONAL_MUTUAL":
        yield problem("TUL0201", place.at("mode"), field="OPTIONAL_MUTUAL")
    if tls.verify_certificate_hash or tls.verify_certificate_spki:
        yield problem("TUL0715", place)
    low, high = _VERSIONS.index(tls.min_protocol_version), _VERSIONS.index(tls.max_protocol_version)
    if high and low > high:
        yield problem("TUL0710", place.at("minProtocolVersion"))
    for index, cipher in enumerate(tls.cipher_suites):
        if cipher not in _CIPHERS:
            yield problem("TUL0711", place.at("cipherSuites", index), name=cipher[:80])
