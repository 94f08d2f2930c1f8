"""Istio's kinds and their served versions: which schema reads each, and which check judges it."""

from typing import Final

from tulle.dialects.istio.check_destination_rule import destination_rule_problems
from tulle.dialects.istio.check_gateway import gateway_object_problems
from tulle.dialects.istio.check_security import authorization_problems, peer_authentication_problems
from tulle.dialects.istio.check_virtual_service import virtual_service_problems
from tulle.dialects.istio.schema_destination_rule import DestinationRule
from tulle.dialects.istio.schema_gateway import Gateway
from tulle.dialects.istio.schema_security import AuthorizationPolicy, PeerAuthentication
from tulle.dialects.istio.schema_services import ServiceEntry, WorkloadEntry
from tulle.dialects.istio.schema_virtual_service import VirtualService
from tulle.dialects.istio.service_entry_checks import service_entry_problems
from tulle.dialects.istio.workload_entry import workload_entry_problems
from tulle.dialects.kinds import KindRead

NETWORKING: Final = "networking.istio.io"
SECURITY: Final = "security.istio.io"
_NETWORKING_VERSIONS: Final = ("v1", "v1beta1", "v1alpha3")
_SECURITY_VERSIONS: Final = ("v1", "v1beta1")

_ENFORCED: Final = (
    KindRead(NETWORKING, "VirtualService", _NETWORKING_VERSIONS, VirtualService, check=virtual_service_problems),
    KindRead(NETWORKING, "DestinationRule", _NETWORKING_VERSIONS, DestinationRule, check=destination_rule_problems),
    KindRead(NETWORKING, "Gateway", _NETWORKING_VERSIONS, Gateway, check=gateway_object_problems),
    KindRead(NETWORKING, "ServiceEntry", _NETWORKING_VERSIONS, ServiceEntry, check=service_entry_problems),
    KindRead(NETWORKING, "WorkloadEntry", _NETWORKING_VERSIONS, WorkloadEntry, check=workload_entry_problems),
    KindRead(
        SECURITY,
        "PeerAuthentication",
        _SECURITY_VERSIONS,
        PeerAuthentication,
        check=peer_authentication_problems,
        requires_root=False,
    ),
    KindRead(
        SECURITY,
        "AuthorizationPolicy",
        _SECURITY_VERSIONS,
        AuthorizationPolicy,
        check=authorization_problems,
        requires_root=False,
    ),
)


def _kept(group: str, kind: str, *versions: str) -> KindRead:
    return KindRead(group, kind, versions, dict, is_enforced=False, requires_root=False)


_NOT_ENFORCED: Final = (
    _kept(NETWORKING, "EnvoyFilter", "v1alpha3"),
    _kept(NETWORKING, "Sidecar", *_NETWORKING_VERSIONS),
    _kept(NETWORKING, "WorkloadGroup", *_NETWORKING_VERSIONS),
    _kept(NETWORKING, "ProxyConfig", "v1beta1"),
    _kept(SECURITY, "RequestAuthentication", *_SECURITY_VERSIONS),
    _kept("telemetry.istio.io", "Telemetry", "v1", "v1alpha1"),
    _kept("extensions.istio.io", "WasmPlugin", "v1alpha1"),
)

KINDS: Final[tuple[KindRead, ...]] = (*_ENFORCED, *_NOT_ENFORCED)
