"""What a port speaks: Istio's protocol selection from appProtocol, port name and well-known number.

Pure text in, `PortProtocol` out; knows no object. Source: Istio, "Protocol Selection" and the server-first ports that
its registry treats as TCP when nothing is declared.
"""

from typing import Final

from tulle.model.intent import PortProtocol

_NAMES: Final = {
    "http": PortProtocol.HTTP,
    "http_proxy": PortProtocol.HTTP,
    "http2": PortProtocol.HTTP2,
    "grpc": PortProtocol.GRPC,
    "grpc-web": PortProtocol.GRPC,
    "tcp": PortProtocol.TCP,
    "tls": PortProtocol.TLS,
    "https": PortProtocol.HTTPS,
    "mongo": PortProtocol.TCP,
    "mysql": PortProtocol.TCP,
    "redis": PortProtocol.TCP,
    "udp": PortProtocol.UDP,
}
_STANDARD: Final = {
    "kubernetes.io/h2c": PortProtocol.HTTP2,
    "kubernetes.io/ws": PortProtocol.HTTP,
    "kubernetes.io/wss": PortProtocol.HTTPS,
}
SERVER_FIRST: Final = {25: "smtp", 53: "dns", 3306: "mysql", 27017: "mongo"}
"""Ports where the server may speak first: sniffing would wait for a client that waits. TCP unless declared."""


def named_protocol(word: str) -> PortProtocol | None:
    """The protocol of `name` or `name-suffix` (any case), None if the word names none."""
    lowered = word.lower()
    if lowered.startswith("grpc-web"):
        return PortProtocol.GRPC
    return _NAMES.get(lowered.partition("-")[0])


def is_known_app_protocol(app_protocol: str) -> bool:
    """Whether `appProtocol` says something to the mesh; otherwise the port is sniffed."""
    return app_protocol in _STANDARD or named_protocol(app_protocol) is not None


def port_protocol(number: int, name: str, ip_protocol: str = "TCP", app_protocol: str | None = None) -> PortProtocol:
    """What a Service port speaks. `appProtocol` wins over the name even when it is not known (Istio).

    SCTP counts as UDP: neither is carried by the mesh.
    """
    if ip_protocol != "TCP":
        return PortProtocol.UDP
    if app_protocol is not None and app_protocol in _STANDARD:
        return _STANDARD[app_protocol]
    declared = named_protocol(name if app_protocol is None else app_protocol)
    if declared is not None:
        return declared
    return PortProtocol.TCP if number in SERVER_FIRST else PortProtocol.AUTO
