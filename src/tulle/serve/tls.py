"""The certificate of the TLS listener, always fresh: short-lived, of the CA's active root, trusting the bundle of now.

gRPC asks for it at each handshake, from threads of its own; what it is given is one finished value.
"""

import ipaddress
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import time

import grpc

from tulle.identity.authority import Authority, Bundle
from tulle.identity.store import utc

LIFETIME = timedelta(hours=24)
_RENEW_AT = 0.5
_ALWAYS = ("localhost", "tulle", "istiod")


class ServerIdentity:
    """The TLS listener's certificate. `refresh` it from the event loop, now and then and when roots change."""

    def __init__(
        self,
        authority: Callable[[], Authority],
        bundle: Callable[[], Bundle],
        host: str,
        namespace: str,
        more: Sequence[str] = (),
    ) -> None:
        """`host` is what clients connect to; `namespace` is where the mesh's own services live; `more` names of ours."""
        self._authority = authority
        self._bundle = bundle
        self._addresses = ["127.0.0.1", host] if _is_address(host) and host != "127.0.0.1" else ["127.0.0.1"]
        names = [] if _is_address(host) or not host else [host]
        services = [f"{name}.{namespace}.svc" for name in ("tulle", "istiod")]
        self._names = [*dict.fromkeys((*names, *_ALWAYS, *services, *more))]
        self._made_of: tuple[str, tuple[str, ...]] = ("", ())
        self._renew_at = 0.0
        self._pem = (b"", b"")
        self._now = self._made()

    def refresh(self) -> None:
        """A new certificate, if roots changed or half of its life is over."""
        if time() >= self._renew_at or self._made_of != self._ingredients():
            self._now = self._made()

    def credentials(self) -> grpc.ServerCredentials:
        """For a listener that asks for a client certificate of the mesh."""
        return grpc.dynamic_ssl_server_credentials(self._now, lambda: self._now, require_client_authentication=True)

    def credentials_for_tokens(self) -> grpc.ServerCredentials:
        """For a listener whose clients prove themselves by a token."""
        return grpc.dynamic_ssl_server_credentials(self._now, lambda: self._now, require_client_authentication=False)

    def pem(self) -> tuple[bytes, bytes]:
        """Key and chain of now, for servers that are not gRPC's."""
        return self._pem

    def _ingredients(self) -> tuple[str, tuple[str, ...]]:
        return self._authority().signer.root_fingerprint, self._bundle().fingerprints

    def _made(self) -> grpc.ServerCertificateConfiguration:
        now = time()
        leaf = self._authority().issue_server(self._names, self._addresses, LIFETIME, utc(now))
        self._renew_at = now + _RENEW_AT * LIFETIME.total_seconds()
        self._made_of = self._ingredients()
        self._pem = (leaf.key_pem.reveal(), leaf.chain_pem)
        return grpc.ssl_server_certificate_configuration([self._pem], root_certificates=self._bundle().pem)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
