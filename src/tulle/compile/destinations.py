"""How a host is called: the destination that applies to a client, and the clusters of a service.

Istio's lookup: the client's namespace, then the service's, then the root namespace; the first that has a destination
for the host decides, and destinations of one host in one namespace are merged.
"""

from msgspec import Struct, structs

from tulle.compile.depth import Reach, depth_rules, reach, reach_of_endpoint
from tulle.compile.scope import destination_table
from tulle.compile.views import OutboundView
from tulle.dialects.inputs import settings
from tulle.dialects.istio.destination_rule import destination
from tulle.dialects.kubernetes import endpoints, service, workloads_selected
from tulle.dialects.routing import demanded_tls, is_called_by_grpc
from tulle.engine import Database, gate, query
from tulle.model.intent import (
    ClientTls,
    PortProtocol,
    Resolution,
    Service,
    ServicePort,
    Subset,
    TlsMode,
    TrafficPolicy,
)
from tulle.model.keys import Labels, ObjectKey, ServiceKey, WorkloadKey, selects
from tulle.model.origin import Origin
from tulle.model.plan import Cluster, Discovery, DnsEndpoint, MeshTls, OriginateTls, ServiceName, Upstream
from tulle.xds.names import outbound, sni


class Treatment(Struct, frozen=True):
    """The merged destination of a host."""

    policy: TrafficPolicy
    subsets: tuple[Subset, ...]
    origins: tuple[Origin, ...]

    def subset(self, name: str) -> Subset | None:
        """The subset of that name."""
        return next((subset for subset in self.subsets if subset.name == name), None)


PLAIN = Treatment(TrafficPolicy(), (), ())


@query
def destinations_for(db: Database, view: OutboundView, key: ServiceKey) -> tuple[ObjectKey, ...]:
    """The destinations that say how clients of the view call a service, by precedence."""
    root = settings(db).root_namespace
    for owner in dict.fromkeys((view.namespace, key.namespace, root)):
        found = destination_table(db, view.cluster, owner, view.namespace).find(key.host)
        applying = tuple(item for item in found if _applies(db, view, item))
        if applying:
            return applying
    return ()


@query
def treatment(db: Database, keys: tuple[ObjectKey, ...]) -> Treatment:
    """Merge destinations of one host: the first policy, every subset once."""
    found = [item for key in keys if (item := destination(db, key))]
    if not found:
        return PLAIN
    policy = next((item.policy for item in found if item.policy != TrafficPolicy()), TrafficPolicy())
    subsets = {subset.name: subset for item in reversed(found) for subset in item.subsets}
    return Treatment(policy, tuple(subsets[name] for name in sorted(subsets)), tuple(item.origin for item in found))


@query
def clusters_of(
    db: Database, key: ServiceKey, destinations: tuple[ObjectKey, ...], at_gateway: bool
) -> tuple[Cluster, ...]:
    """Every cluster of a service: each port, whole and by subset. Shared by all clients with equal destinations.

    Gateways balance over the pods of headless services, as their clients chose none (Istio).
    """
    found = service(db, key)
    if found is None:
        return ()
    if at_gateway and found.resolution is Resolution.HEADLESS:
        found = structs.replace(found, resolution=Resolution.STATIC)
    how = treatment(db, destinations)
    made: list[Cluster] = []
    for port in found.ports:
        if port.protocol is PortProtocol.UDP:
            continue
        is_relayed = _suits(port.protocol, at_gateway) and relays_http(db, found, port.number)
        for subset in (None, *how.subsets):
            one = _cluster(db, found, port, how, subset, is_relayed=is_relayed)
            made.append(_at_gateway(db, one, found, port) if at_gateway else one)
    return tuple(made)


@gate
def met_at(db: Database, key: ServiceKey, port: int) -> frozenset[Reach]:
    """What connections to a port meet: at the workloads that are selected, and at endpoints given otherwise.

    Selected workloads that are not ready count too, so that nothing changes while a service starts or fails.
    """
    found = service(db, key)
    chosen: tuple[WorkloadKey, ...] = ()
    if found and found.selector:
        chosen = workloads_selected(db, key.cluster, key.namespace, found.selector)
    met = {known for item in chosen if (known := reach(db, item)) is not None}
    selected = set(chosen)
    for endpoint in endpoints(db, key, port):
        if endpoint.workload is None or endpoint.workload not in selected:
            met.add(reach_of_endpoint(db, endpoint))
    return frozenset(met)


def mesh_coverage(db: Database, key: ServiceKey, port: int) -> MeshTls:
    """Whether the endpoints of a port have sidecars: all, none, or some. No endpoints count as all."""
    have = {found is not Reach.BARE for found in met_at(db, key, port)}
    if have == {True, False}:
        return MeshTls.BY_ENDPOINT
    return MeshTls.NEVER if have == {False} else MeshTls.ALWAYS


def relays_http(db: Database, found: Service, port: int) -> bool:
    """Whether every sidecar behind an HTTP port relays it. Without any, whether one with the selector's labels would."""
    met = met_at(db, found.key, port) - {Reach.BARE}
    if met or found.selector is None or found.is_external:
        return met == {Reach.RELAYS}
    return depth_rules(db, found.key.cluster, found.key.namespace).relays(None, found.selector)


@gate
def identities(db: Database, key: ServiceKey, port: int) -> tuple[str, ...]:
    """The SPIFFE IDs that may answer for a port (Istio's secure naming): those of its endpoints."""
    trust_domain = settings(db).trust_domain
    accounts = {
        (endpoint.workload.namespace, endpoint.service_account)
        for endpoint in endpoints(db, key, port)
        if endpoint.workload and endpoint.has_sidecar
    }
    return tuple(sorted(f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}" for namespace, account in accounts))


def name_of(found: Service) -> ServiceName:
    """How metrics call a service: Kubernetes' name, or the host of a ServiceEntry."""
    name = found.key.host.split(".", 1)[0] if found.is_kubernetes else found.key.host
    return ServiceName(found.key.host, name, found.key.namespace)


def _applies(db: Database, view: OutboundView, key: ObjectKey) -> bool:
    found = destination(db, key)
    return found is not None and selects(found.selector, view.labels)


def _cluster(
    db: Database, found: Service, port: ServicePort, how: Treatment, subset: Subset | None, *, is_relayed: bool
) -> Cluster:
    key = found.key
    base = _at_port(how.policy, port.number)
    tls, policies = base.tls, base.policies
    if subset and subset.policy:
        own = _at_port(subset.policy, port.number)
        inherits = port.number not in dict(subset.policy.ports)  # settings for a port inherit nothing (Istio)
        tls = own.tls or (base.tls if inherits else None)
        policies = _merged(base.policies, own.policies) if inherits else own.policies
    subset_name, labels = (subset.name, subset.labels) if subset else ("", ())
    mesh = _mesh_tls(db, found, port.number, tls)
    discovery = _discovery(found)
    asked = _http2_asked(policies)
    if mesh is MeshTls.NEVER or (asked and port.protocol is PortProtocol.HTTP):
        is_relayed = False  # HTTP/2 between the sidecars was asked for, whatever the workload speaks
    return Cluster(
        name=outbound(port.number, key.host, subset_name),
        discovery=discovery,
        upstream=_upstream(port.protocol, MeshTls.NEVER if is_relayed else mesh, asked),
        mesh_tls=mesh,
        service=name_of(found),
        origins=(found.origin, *how.origins, *((subset.origin,) if subset else ())),
        originate=_originate(tls, key.host),
        sni=sni(port.number, key.host, subset_name),
        subject_alt_names=found.subject_alt_names
        or (identities(db, key, port.number) if mesh is not MeshTls.NEVER else ()),
        endpoints=_dns_endpoints(db, found, port, labels) if _is_dns(discovery) else (),
        source=(key, port.number, labels) if discovery is Discovery.EDS else None,
        policies=policies,
        is_relayed=is_relayed,
    )


def _is_dns(discovery: Discovery) -> bool:
    return discovery in (Discovery.DNS, Discovery.DNS_FIRST)


def _dns_endpoints(db: Database, found: Service, port: ServicePort, labels: Labels) -> tuple[DnsEndpoint, ...]:
    given = tuple(
        DnsEndpoint(endpoint.address, endpoint.port, endpoint.weight)
        for endpoint in endpoints(db, found.key, port.number)
        if selects(labels, endpoint.labels)
    )
    if given:
        return given
    target = port.target if isinstance(port.target, int) else port.number
    return (DnsEndpoint(found.external_name or found.key.host, target),)


def _at_port(policy: TrafficPolicy, port: int) -> TrafficPolicy:
    return dict(policy.ports).get(port, policy)


def _merged(base: tuple[object, ...], own: tuple[object, ...]) -> tuple[object, ...]:
    """A subset's policy replaces the destination's, kind by kind (Istio's merge of traffic policies)."""
    replaced = {type(policy) for policy in own}
    return tuple(policy for policy in base if type(policy) not in replaced) + own


def _discovery(found: Service) -> Discovery:
    match found.resolution:
        case Resolution.DNS:
            return Discovery.DNS
        case Resolution.DNS_ROUND_ROBIN:
            return Discovery.DNS_FIRST
        case Resolution.NONE | Resolution.HEADLESS:
            return Discovery.ORIGINAL_DST
        case _:
            return Discovery.EDS


def _mesh_tls(db: Database, found: Service, port: int, tls: ClientTls | None) -> MeshTls:
    if tls is not None:
        return MeshTls.ALWAYS if tls.mode is TlsMode.ISTIO_MUTUAL else MeshTls.NEVER
    if found.resolution in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN, Resolution.NONE):
        return MeshTls.NEVER
    coverage = mesh_coverage(db, found.key, port)
    if found.is_external and coverage is MeshTls.ALWAYS and not endpoints(db, found.key, port):
        return MeshTls.NEVER
    if found.resolution is Resolution.HEADLESS and coverage is MeshTls.BY_ENDPOINT:
        return MeshTls.NEVER  # an address the client chose carries no metadata to decide by
    return coverage


def _http2_asked(policies: tuple[object, ...]) -> bool | None:
    """Istio's h2UpgradePolicy."""
    return next((one for policy in policies if (one := getattr(policy, "upgrade_to_http2", None)) is not None), None)


def _suits(protocol: PortProtocol, at_gateway: bool) -> bool:
    """Whether workloads may be sent what a client speaks: browsers speak HTTP/2 to a gateway, a port of `http` may not."""
    return protocol.is_http and not (at_gateway and protocol is PortProtocol.HTTP)


def _as_declared(db: Database, plan: Cluster, key: ServiceKey, port: int) -> Cluster:
    """A gateway does not pass on its clients' HTTP/2: a port that does not declare it may not speak it, unless gRPC goes there."""
    if plan.upstream is not Upstream.SAME:
        return plan
    is_grpc = is_called_by_grpc(db, key.cluster, key.host, port)
    return structs.replace(plan, upstream=Upstream.HTTP2 if is_grpc else Upstream.HTTP1)


def _at_gateway(db: Database, plan: Cluster, found: Service, port: ServicePort) -> Cluster:
    """The cluster of a gateway: TLS where a policy for the service demands it, and what the port declares."""
    demanded = demanded_tls(db, found, port)
    if demanded is None:
        return _as_declared(db, plan, found.key, port.number)
    declared = PortProtocol.AUTO if port.protocol.is_tls else port.protocol  # what is inside the TLS is said nowhere
    secured = structs.replace(
        plan,
        upstream=_upstream(declared, MeshTls.NEVER, None),
        mesh_tls=MeshTls.NEVER,
        is_relayed=False,
        subject_alt_names=(),
        originate=_demanded(demanded, found.key.host),
        origins=(*plan.origins, demanded.origin),
    )
    if demanded.roots is None:  # nobody can prove to be it: nobody is called
        secured = structs.replace(secured, discovery=Discovery.STATIC, endpoints=(), source=None, originate=None)
    return _as_declared(db, secured, found.key, port.number)


def _demanded(tls: ClientTls, host: str) -> OriginateTls | None:
    made = _originate(tls, host)
    return structs.replace(made, is_demanded=True) if made else None


def presenting(plan: Cluster, certificate: str) -> Cluster:
    """The cluster as a gateway with a certificate of its own (the name of its secret resource) calls it."""
    if not certificate or plan.originate is None or not plan.originate.is_demanded:
        return plan
    return structs.replace(plan, originate=structs.replace(plan.originate, certificate=certificate))


def _upstream(protocol: PortProtocol, mesh: MeshTls, http2_asked: bool | None) -> Upstream:
    if protocol in (PortProtocol.HTTP2, PortProtocol.GRPC):
        return Upstream.HTTP2
    if protocol in (PortProtocol.HTTP, PortProtocol.AUTO):
        if http2_asked is not None:
            return Upstream.HTTP2 if http2_asked else Upstream.HTTP1
        by_coverage = {
            MeshTls.ALWAYS: Upstream.HTTP2,
            MeshTls.BY_ENDPOINT: Upstream.HTTP1,
            MeshTls.NEVER: Upstream.SAME,
        }
        return by_coverage[mesh]
    return Upstream.TCP


def _originate(tls: ClientTls | None, host: str) -> OriginateTls | None:
    if tls is None or tls.mode is not TlsMode.SIMPLE:
        return None  # the dialect refuses MUTUAL: nobody serves certificates for it
    return OriginateTls(
        sni=tls.sni or ("" if host.startswith("*") else host),
        subject_alt_names=tls.subject_alt_names,
        insecure_skip_verify=tls.insecure_skip_verify,
        roots=tls.roots or "",
    )
