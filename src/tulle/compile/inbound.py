"""What a workload's sidecar accepts: its ports, the mTLS mode of each, and the policies in force.

The answer carries no address and no name of the workload, so replicas of one Deployment share it.
"""

from typing import Any

from tulle.compile.depth import DepthRules, depth_rules
from tulle.dialects.inputs import settings
from tulle.dialects.istio.security import authorizations_in, peer_authentications_in
from tulle.dialects.kubernetes import services_in, workload
from tulle.engine import Database, query
from tulle.model.intent import Depth, InboundMtls, MtlsMode, PeerAuthentication, PortProtocol, Service, Workload
from tulle.model.keys import Labels, WorkloadKey, selects
from tulle.model.origin import Origin
from tulle.model.plan import Inbound, InboundPort, ServiceName

CAPTURE_PORTS = frozenset((15001, 15006))
"""Where sidecars listen themselves: such a port of a service would call its sidecar for ever."""
OWN_PORTS = frozenset((15020, 15021, 15090))
"""The proxy's own, at every address: Envoy gives them connections to any address of that port, and refuses a second listener for all."""
TAKEN_PORTS = CAPTURE_PORTS | OWN_PORTS
"""Where nothing may listen at every address."""


@query
def inbound_of(db: Database, key: WorkloadKey) -> Inbound | None:
    """The inbound half of a workload's view; None where it is unknown."""
    found = workload(db, key)
    if found is None:
        return None
    mtls = mtls_of(db, key.cluster, key.namespace, found.labels)
    policies = tuple(policies_on(db, key.cluster, key.namespace, found.labels))
    origins = tuple(policy.origin for policy in policies)
    if mtls.origin:
        origins = (mtls.origin, *origins)
    rules = depth_rules(db, key.cluster, key.namespace)
    ports: dict[int, InboundPort] = {}
    for item in services_in(db, key.cluster, key.namespace):
        if item.selector and selects(item.selector, found.labels):
            for number, protocol in _ports_at(item, found):
                service = _named(item)
                if number not in ports:
                    depth, raised_by = _depth_at(protocol, found, rules)
                    at = (item.origin, *origins)
                    mode = mtls.at(number)
                    ports[number] = InboundPort(number, protocol, mode, service, policies, at, depth, raised_by)
    for number, mode in mtls.ports:
        if number not in ports and number not in CAPTURE_PORTS:
            ports[number] = InboundPort(number, PortProtocol.AUTO, mode, None, policies, origins)
    return Inbound(tuple(ports[number] for number in sorted(ports)), mtls.mode, policies, origins)


@query
def mtls_of(db: Database, cluster: str, namespace: str, labels: Labels) -> InboundMtls:
    """The effective mode: the workload's own PeerAuthentication, then its namespace's, then the mesh's; oldest first.

    Port modes come from the workload's own only (Istio); nothing said anywhere means PERMISSIVE.
    """
    wide = _oldest(peer_authentications_in(db, cluster, settings(db).root_namespace), ())
    near = _oldest(peer_authentications_in(db, cluster, namespace), ())
    own = _oldest(peer_authentications_in(db, cluster, namespace), labels)
    deciding = next((item for item in (own, near, wide) if item and item.mode), None)
    mode = deciding.mode if deciding and deciding.mode else MtlsMode.PERMISSIVE
    return InboundMtls(mode, own.ports if own else (), deciding.origin if deciding else None)


@query
def policies_on(db: Database, cluster: str, namespace: str, labels: Labels) -> tuple[Any, ...]:
    """Authorizations in force for a workload: those of its namespace and of the root namespace that select it."""
    places = dict.fromkeys((settings(db).root_namespace, namespace))
    return tuple(
        item.policy
        for place in places
        for item in authorizations_in(db, cluster, place)
        if selects(item.selector, labels)
    )


def _depth_at(protocol: PortProtocol, found: Workload, rules: DepthRules) -> tuple[Depth | None, Origin | None]:
    """The depth asked for, and what raises it. Where HTTP is only sniffed it is always parsed."""
    if not protocol.is_http:
        return None, None
    depth = found.depth or rules.default
    return depth, rules.raised_by(depth, found.labels)


def _oldest(found: tuple[PeerAuthentication, ...], labels: Labels) -> PeerAuthentication | None:
    """The oldest that selects these labels by a selector; without labels, the oldest without a selector."""
    fitting = [
        item
        for item in found
        if (bool(item.selector) and selects(item.selector, labels) if labels else not item.selector)
    ]
    return min(fitting, key=lambda item: (item.created, item.key), default=None)


def _ports_at(item: Service, found: Workload) -> list[tuple[int, PortProtocol]]:
    named = {port.name: port.number for port in found.ports}
    pairs: list[tuple[int, PortProtocol]] = []
    for port in item.ports:
        target = port.target if isinstance(port.target, int) else named.get(port.target)
        if target is not None and target not in CAPTURE_PORTS and port.protocol is not PortProtocol.UDP:
            pairs.append((target, port.protocol))
    return pairs


def _named(item: Service) -> ServiceName:
    return ServiceName(item.key.host, item.key.host.split(".", 1)[0], item.key.namespace)
