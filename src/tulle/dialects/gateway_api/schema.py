"""Gateway, GatewayClass, ListenerSet, ReferenceGrant and BackendTLSPolicy as written (gateway.networking.k8s.io).

What status must be able to report (an unknown protocol or kind) is text here and judged later. Fields without a docstring mean
what the Gateway API reference says of them; all served versions have the same fields.
"""

from typing import Annotated, Any, Literal

from msgspec import Struct, field

from tulle.dialects.kinds import UNENFORCED, PortNumber

GROUP = "gateway.networking.k8s.io"
Unused = Annotated[dict[str, Any] | None, UNENFORCED]


class Wire(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A spec or a part of one, spelled as in YAML."""


class LabelExpression(Wire, frozen=True):
    """One requirement of a selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Wire, frozen=True):
    """Kubernetes' label selector; nothing in it selects everything."""

    match_labels: dict[str, str] = field(default_factory=dict)
    match_expressions: tuple[LabelExpression, ...] = ()


class RouteNamespaces(Wire, frozen=True):
    """Whose routes may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = field(default="Same", name="from")
    selector: LabelSelector | None = None


class RouteKind(Wire, frozen=True):
    """A kind of route."""

    kind: str
    group: str = GROUP


class AllowedRoutes(Wire, frozen=True):
    """Which routes may attach."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteKind, ...] = ()


class SecretRef(Wire, frozen=True):
    """A Secret, here or elsewhere."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str | None = None


class ListenerTls(Wire, frozen=True):
    """TLS of a listener."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: tuple[SecretRef, ...] = ()
    options: Annotated[dict[str, str], UNENFORCED] = field(default_factory=dict)


class Listener(Wire, frozen=True):
    """A listener of a Gateway or of a ListenerSet."""

    name: str
    port: PortNumber
    protocol: str
    hostname: str = ""
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class Address(Wire, frozen=True):
    """An address asked for."""

    type: str = "IPAddress"
    value: str = ""


class ParametersRef(Wire, frozen=True):
    """Parameters of a class or of one Gateway."""

    group: str
    kind: str
    name: str
    namespace: str | None = None


class Infrastructure(Wire, frozen=True):
    """What is put on everything made for a Gateway."""

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    parameters_ref: ParametersRef | None = None


class AllowedListeners(Wire, frozen=True):
    """Whose ListenerSets may attach."""

    namespaces: RouteNamespaces = RouteNamespaces(from_="None")


class CaRef(Wire, frozen=True):
    """Where roots are."""

    group: str
    kind: str
    name: str
    namespace: str | None = None
    """Only where a Gateway names them."""


class FrontendValidation(Wire, frozen=True):
    """What clients must prove; the mode is text, so that an unknown one is answered in status."""

    ca_certificate_refs: tuple[CaRef, ...] = ()
    mode: str = "AllowValidOnly"


class FrontendConfig(Wire, frozen=True):
    """TLS towards clients."""

    validation: FrontendValidation | None = None


class FrontendPort(Wire, frozen=True):
    """TLS towards clients of one port, in place of the default."""

    port: PortNumber
    tls: FrontendConfig = FrontendConfig()


class FrontendTls(Wire, frozen=True):
    """TLS of all listeners of HTTPS."""

    default: FrontendConfig = FrontendConfig()
    per_port: tuple[FrontendPort, ...] = ()


class BackendTls(Wire, frozen=True):
    """TLS towards backends."""

    client_certificate_ref: SecretRef | None = None


class GatewayTls(Wire, frozen=True):
    """TLS of a whole Gateway."""

    backend: BackendTls | None = None
    frontend: FrontendTls | None = None


class Gateway(Wire, frozen=True):
    """Where traffic enters."""

    gateway_class_name: str
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[Address, ...] = ()
    infrastructure: Infrastructure = Infrastructure()
    allowed_listeners: AllowedListeners = AllowedListeners()
    tls: GatewayTls = GatewayTls()
    default_scope: Annotated[str, UNENFORCED] = ""


class GatewayClass(Wire, frozen=True):
    """Who serves the Gateways of a class."""

    controller_name: str
    description: str | None = None
    parameters_ref: ParametersRef | None = None


class ParentGatewayRef(Wire, frozen=True):
    """The Gateway a ListenerSet adds to."""

    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str | None = None


class ListenerSet(Wire, frozen=True):
    """More listeners of a Gateway."""

    parent_ref: ParentGatewayRef
    listeners: tuple[Listener, ...] = ()


class GrantFrom(Wire, frozen=True):
    """Who may refer."""

    group: str
    kind: str
    namespace: str


class GrantTo(Wire, frozen=True):
    """To what; without a name to all of the kind."""

    group: str
    kind: str
    name: str | None = None


class ReferenceGrant(Wire, frozen=True):
    """References from other namespaces that this namespace allows."""

    from_: tuple[GrantFrom, ...] = field(default=(), name="from")
    to: tuple[GrantTo, ...] = ()


class PolicyTarget(Wire, frozen=True):
    """What a policy is for; the section is the name of a Service's port."""

    group: str
    kind: str
    name: str
    section_name: str | None = None


class SubjectAltName(Wire, frozen=True):
    """A name a backend must prove."""

    type: Literal["Hostname", "URI"]
    hostname: str = ""
    uri: str = ""


class BackendTlsValidation(Wire, frozen=True):
    """What a backend's certificate must be."""

    hostname: str
    ca_certificate_refs: tuple[CaRef, ...] = ()
    well_known_ca_certificates: str | None = field(default=None, name="wellKnownCACertificates")
    subject_alt_names: tuple[SubjectAltName, ...] = ()


class BackendTLSPolicy(Wire, frozen=True):
    """TLS from a gateway to a backend."""

    target_refs: tuple[PolicyTarget, ...]
    validation: BackendTlsValidation
    options: Annotated[dict[str, str], UNENFORCED] = field(default_factory=dict)
