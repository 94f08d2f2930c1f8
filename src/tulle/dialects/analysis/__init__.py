"""Warnings that need more than one object: what is named and not there, what overlaps, what does nothing.

Needs every dialect, so it stands beside them. Never refuses anything: order of arrival must not matter.
"""

from collections.abc import Callable
from typing import Final

from tulle.dialects.analysis.gateway_api import (
    backend_policy_problems,
    listener_problems,
    listener_set_problems,
    route_problems,
)
from tulle.dialects.analysis.gateways import gateway_problems
from tulle.dialects.analysis.routes import destination_problems, route_set_problems
from tulle.dialects.analysis.security import authorization_problems, peer_authentication_problems
from tulle.dialects.gateway_api.names import ROUTE_KINDS
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.kubernetes.depth import depth_problems
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey
from tulle.model.problems import Problem

_ANALYSES: Final[dict[tuple[str, str], Callable[[Database, ObjectKey], tuple[Problem, ...]]]] = {
    ("", "Namespace"): depth_problems,
    ("", "Pod"): depth_problems,
    ("networking.istio.io", "VirtualService"): route_set_problems,
    ("networking.istio.io", "DestinationRule"): destination_problems,
    ("networking.istio.io", "Gateway"): gateway_problems,
    ("security.istio.io", "PeerAuthentication"): peer_authentication_problems,
    ("security.istio.io", "AuthorizationPolicy"): authorization_problems,
    (GROUP, "Gateway"): listener_problems,
    (GROUP, "ListenerSet"): listener_set_problems,
    (GROUP, "BackendTLSPolicy"): backend_policy_problems,
    **{(GROUP, kind): route_problems for kind in ROUTE_KINDS},
}


@query
def problems_of(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """What the other objects say of this one. What is wrong with it alone was said when it was read."""
    analysis = _ANALYSES.get((key.group, key.kind))
    return () if analysis is None else analysis(db, key)
