"""How the kinds we read are called in a cluster: plurals, short names, and the columns that `kubectl get` prints.

Pure tables. Columns and short names are those of Istio's own definitions, so that habits go on.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from tulle.dialects.gateway_api.kinds import KINDS as GATEWAY_API_KINDS
from tulle.dialects.istio.kinds import KINDS


class Column(NamedTuple):
    """One column of `kubectl get`."""

    title: str
    path: str
    type: str = "string"
    words: str = ""


class Called(NamedTuple):
    """The names of a kind."""

    plural: str
    short: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date", "Since when it exists")

CALLED: Final = {
    "VirtualService": Called(
        "virtualservices",
        ("vs",),
        (
            Column("Gateways", ".spec.gateways", words="Gateways and sidecars it applies to"),
            Column("Hosts", ".spec.hosts", words="Hosts whose traffic it routes"),
            _AGE,
        ),
    ),
    "DestinationRule": Called(
        "destinationrules", ("dr",), (Column("Host", ".spec.host", words="The service it is about"), _AGE)
    ),
    "Gateway": Called("gateways", ("gw",)),
    "ServiceEntry": Called(
        "serviceentries",
        ("se",),
        (
            Column("Hosts", ".spec.hosts", words="Its hosts"),
            Column("Location", ".spec.location", words="Inside or outside the mesh"),
            Column("Resolution", ".spec.resolution", words="How its addresses are found"),
            _AGE,
        ),
    ),
    "WorkloadEntry": Called(
        "workloadentries", ("we",), (_AGE, Column("Address", ".spec.address", words="Where the workload is"))
    ),
    "PeerAuthentication": Called(
        "peerauthentications", ("pa",), (Column("Mode", ".spec.mtls.mode", words="mTLS of inbound ports"), _AGE)
    ),
    "AuthorizationPolicy": Called(
        "authorizationpolicies", ("ap",), (Column("Action", ".spec.action", words="What it does"), _AGE)
    ),
    "EnvoyFilter": Called("envoyfilters"),
    "Sidecar": Called("sidecars"),
    "WorkloadGroup": Called("workloadgroups", ("wg",), (_AGE,)),
    "ProxyConfig": Called("proxyconfigs"),
    "RequestAuthentication": Called("requestauthentications", ("ra",)),
    "Telemetry": Called("telemetries", ("telemetry",), (_AGE,)),
    "WasmPlugin": Called("wasmplugins", (), (_AGE,)),
}


OWN_GROUP: Final = "tulle.dev"
LEARNED_NAMES: Final = Called(
    "learnednames", (), (Column("Workload", ".spec.workload", words="Whose sidecars asked"), _AGE)
)
"""A kind of ours that no user writes."""


class LearnedNamesSpec(Struct, frozen=True):
    """What the sidecars of one identity have called (decision 0008)."""

    workload: str = ""
    """Its SPIFFE id and what owns its pods."""
    names: dict[str, float] = {}
    """What was asked for, such as `vip/10.96.0.10:80`; when last, Unix seconds, some hours less."""


def groups() -> Iterator[tuple[str, tuple[str, ...]]]:
    """API groups of Istio's kinds with the plurals we read, both sorted."""
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        found.setdefault(kind.group, []).append(CALLED[kind.kind].plural)
    for group in sorted(found):
        yield group, tuple(sorted(found[group]))


_GATEWAY_API: Final = {
    "GatewayClass": "gatewayclasses",
    "Gateway": "gateways",
    "ListenerSet": "listenersets",
    "HTTPRoute": "httproutes",
    "GRPCRoute": "grpcroutes",
    "TLSRoute": "tlsroutes",
    "TCPRoute": "tcproutes",
    "UDPRoute": "udproutes",
    "ReferenceGrant": "referencegrants",
    "BackendTLSPolicy": "backendtlspolicies",
}


def gateway_api() -> tuple[str, ...]:
    """Plurals of the Gateway API's kinds that we read, sorted."""
    return tuple(sorted(_GATEWAY_API[kind.kind] for kind in GATEWAY_API_KINDS))
