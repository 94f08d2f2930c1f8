"""Gateways of the Gateway API to gateways of the mesh: each listener that can serve is a server that routes bind to by name."""

from tulle.dialects.gateway_api.gateway_classes import our_gateways
from tulle.dialects.gateway_api.listeners import Listener, client_certificate, gateway_listeners
from tulle.dialects.gateway_api.names import NAME_LABEL
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.intent import Gateway, PortProtocol, Server, ServerTls, ServerTlsMode
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin

PROTOCOLS = {
    "HTTP": PortProtocol.HTTP,
    "HTTPS": PortProtocol.HTTPS,
    "TLS": PortProtocol.TLS,
    "TCP": PortProtocol.TCP,
}


@query
def gateways(db: Database, cluster: str) -> tuple[Gateway, ...]:
    """All gateways of the dialect, oldest first. Fan-in: they are few."""
    found = [one for key in our_gateways(db, cluster) if (one := gateway(db, key)) is not None]
    return tuple(sorted(found, key=lambda one: (one.created, one.key.namespace, one.key.name)))


@query
def gateway(db: Database, key: ObjectKey) -> Gateway | None:
    """One Gateway's meaning; None where there is none that is ours. Its pods are of its own namespace."""
    found = objects(db, key)
    if found is None or key.group != GROUP:
        return None
    shown, _ = client_certificate(db, key)
    return Gateway(
        key=key,
        selector=((NAME_LABEL, key.name),),
        servers=tuple(_server(one) for one in gateway_listeners(db, key) if one.serves),
        origin=Origin(key),
        created=found.created,
        is_local=True,
        client_certificate=(shown.namespace, shown.name) if shown else None,
    )


def _server(one: Listener) -> Server:
    written = one.written
    is_own = one.holder == one.gateway
    return Server(
        port=written.port,
        name=written.name if is_own else f"{one.holder.namespace}.{one.holder.name}.{written.name}",
        protocol=PROTOCOLS[written.protocol],
        hosts=(f"*/{one.host}",),
        bind="",
        tls=_tls(one),
        origin=one.origin,
        binding=one.binding,
    )


def _tls(one: Listener) -> ServerTls | None:
    if one.written.tls is None or one.written.protocol not in ("HTTPS", "TLS"):
        return None
    mode = ServerTlsMode.PASSTHROUGH if one.certificate is None else ServerTlsMode.SIMPLE
    return ServerTls(
        mode=mode,
        credential=one.certificate.name if one.certificate else "",
        https_redirect=False,
        subject_alt_names=(),
        min_version="",
        max_version="",
        cipher_suites=(),
        credential_namespace=one.certificate.namespace if one.certificate else "",
        client_roots=one.client_roots,
        takes_anybody=one.takes_anybody,
    )
