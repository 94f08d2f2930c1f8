"""Gateways of networking.istio.io to gateways of the mesh. Knows no workload and no Secret."""

from typing import Final

from tulle.dialects.inputs import by_kind, objects
from tulle.dialects.istio import schema_gateway as written
from tulle.engine import Database, query
from tulle.model.intent import Gateway, PortProtocol, Server, ServerTls, ServerTlsMode
from tulle.model.keys import ObjectKey, labels_of
from tulle.model.origin import Origin

KIND = "Gateway"
GROUP = "networking.istio.io"

PROTOCOLS: Final = {
    "HTTP": PortProtocol.HTTP,
    "HTTP2": PortProtocol.HTTP2,
    "GRPC": PortProtocol.GRPC,
    "GRPC-WEB": PortProtocol.GRPC,
    "HTTPS": PortProtocol.HTTPS,
    "TLS": PortProtocol.TLS,
    "TCP": PortProtocol.TCP,
    "MONGO": PortProtocol.TCP,
    "MYSQL": PortProtocol.TCP,
    "REDIS": PortProtocol.TCP,
}
"""What a server's port may speak, in upper case; the databases are passed through as TCP."""


@query
def gateways(db: Database, cluster: str) -> tuple[Gateway, ...]:
    """All gateways, oldest first (by creation, then namespace and name). Fan-in: they are few."""
    keys = by_kind(db, (cluster, KIND))
    found = [one for key in keys if key.group == GROUP and (one := gateway(db, key)) is not None]
    return tuple(sorted(found, key=lambda one: (one.created, one.key.namespace, one.key.name)))


@query
def gateway(db: Database, key: ObjectKey) -> Gateway | None:
    """One Gateway's meaning; None where there is no such object."""
    found = objects(db, key)
    if found is None:
        return None
    spec: written.Gateway = found.spec
    origin = Origin(key, "spec")
    return Gateway(
        key=key,
        selector=labels_of(spec.selector),
        servers=tuple(
            _server(server, key.namespace, origin.at("servers", index)) for index, server in enumerate(spec.servers)
        ),
        origin=Origin(key),
        created=found.created,
    )


def _server(server: written.Server, namespace: str, origin: Origin) -> Server:
    return Server(
        port=server.port.number,
        name=server.name or server.port.name,
        protocol=PROTOCOLS[server.port.protocol.upper()],
        hosts=tuple(dict.fromkeys(server_host(host, namespace) for host in server.hosts)),
        bind=server.bind,
        tls=_tls(server.tls),
        origin=origin,
    )


def server_host(host: str, namespace: str) -> str:
    """`namespace/host`: `./` is the gateway's own namespace, no namespace is any."""
    place, slash, name = host.partition("/")
    if not slash:
        return f"*/{host.lower()}"
    return f"{namespace if place == '.' else place}/{name.lower()}"


def _tls(tls: written.ServerTls | None) -> ServerTls | None:
    if tls is None:
        return None
    # OPTIONAL_MUTUAL would ask for a certificate and take none: without it every client is still served.
    mode = "SIMPLE" if tls.mode == "OPTIONAL_MUTUAL" else tls.mode
    return ServerTls(
        mode=ServerTlsMode(mode),
        credential=tls.credential_name,
        https_redirect=tls.https_redirect,
        subject_alt_names=tls.subject_alt_names,
        min_version="" if tls.min_protocol_version == "TLS_AUTO" else tls.min_protocol_version,
        max_version="" if tls.max_protocol_version == "TLS_AUTO" else tls.max_protocol_version,
        cipher_suites=tls.cipher_suites,
    )
