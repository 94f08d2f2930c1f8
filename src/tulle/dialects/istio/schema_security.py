"""PeerAuthentication and AuthorizationPolicy as written, under the names of Istio's reference."""

from typing import Literal

from msgspec import field

from tulle.dialects.istio.schema_wire import Wire, WorkloadSelector


class MutualTls(Wire, frozen=True):
    """PeerAuthentication.MutualTLS."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthentication(Wire, frozen=True):
    """mTLS of inbound ports."""

    selector: WorkloadSelector | None = None
    mtls: MutualTls | None = None
    port_level_mtls: dict[str, MutualTls] = field(default_factory=dict)


class Source(Wire, frozen=True):
    """Who calls."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()


class Operation(Wire, frozen=True):
    """What is called."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class From(Wire, frozen=True):
    """Rule.From."""

    source: Source | None = None


class To(Wire, frozen=True):
    """Rule.To."""

    operation: Operation | None = None


class When(Wire, frozen=True):
    """Condition."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class Rule(Wire, frozen=True, rename={"from_": "from"}):
    """Rule."""

    from_: tuple[From, ...] | None = None
    to: tuple[To, ...] | None = None
    when: tuple[When, ...] = ()


class TargetRef(Wire, frozen=True):
    """PolicyTargetReference."""

    kind: str
    name: str
    group: str = ""
    namespace: str = ""


class Provider(Wire, frozen=True):
    """ExtensionProvider."""

    name: str = ""


class AuthorizationPolicy(Wire, frozen=True):
    """Who may call what."""

    selector: WorkloadSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    rules: tuple[Rule, ...] | None = None
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: Provider | None = None
