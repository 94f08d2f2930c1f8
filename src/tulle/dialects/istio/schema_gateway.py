"""Gateway (networking.istio.io) as written. Fields without a docstring mean what Istio's reference says of them."""

from typing import Annotated, Any, Literal

from msgspec import field

from tulle.dialects.istio.schema_wire import Labels, Wire
from tulle.dialects.kinds import UNENFORCED, PortNumber

TlsVersion = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]


class Port(Wire, frozen=True):
    """Port."""

    number: PortNumber
    protocol: str
    name: str = ""
    target_port: Annotated[int | None, UNENFORCED] = None
    """Deprecated by Istio, which ignores it too."""


class ServerTls(Wire, frozen=True):
    """ServerTLSSettings."""

    https_redirect: bool = False
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = (
        "PASSTHROUGH"
    )
    server_certificate: Annotated[str, UNENFORCED] = ""
    private_key: Annotated[str, UNENFORCED] = ""
    ca_certificates: Annotated[str, UNENFORCED] = ""
    ca_crl: Annotated[str, UNENFORCED] = ""
    credential_name: str = ""
    credential_names: Annotated[tuple[str, ...], UNENFORCED] = ()
    tls_certificates: Annotated[tuple[dict[str, Any], ...], UNENFORCED] = ()
    ca_cert_credential_name: Annotated[str, UNENFORCED] = ""
    subject_alt_names: tuple[str, ...] = ()
    verify_certificate_spki: Annotated[tuple[str, ...], UNENFORCED] = ()
    verify_certificate_hash: Annotated[tuple[str, ...], UNENFORCED] = ()
    min_protocol_version: TlsVersion = "TLS_AUTO"
    max_protocol_version: TlsVersion = "TLS_AUTO"
    cipher_suites: tuple[str, ...] = ()


class Server(Wire, frozen=True):
    """Server."""

    port: Port
    hosts: tuple[str, ...] = ()
    bind: str = ""
    tls: ServerTls | None = None
    default_endpoint: Annotated[str, UNENFORCED] = ""
    name: str = ""


class Gateway(Wire, frozen=True):
    """Servers on gateway workloads."""

    servers: tuple[Server, ...] = ()
    selector: Labels = field(default_factory=dict)
