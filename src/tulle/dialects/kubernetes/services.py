"""Kubernetes Services as services of the mesh.

Knows no ServiceEntry: `registry.py` puts both together and resolves aliases. Endpoints begin in `service_endpoints.py`.
"""

from collections.abc import Iterable
from typing import Final

from tulle.dialects.inputs import by_namespace, objects, settings
from tulle.dialects.kubernetes import schema
from tulle.dialects.kubernetes.checks import NO_ADDRESS, is_ip, written_addresses
from tulle.dialects.kubernetes.protocols import port_protocol
from tulle.engine import Database, query
from tulle.model.intent import Resolution, Service, ServicePort
from tulle.model.keys import ObjectKey, ServiceKey, labels_of
from tulle.model.objects import Object
from tulle.model.origin import Origin

EXPORT_TO: Final = "networking.istio.io/exportTo"
EXTERNAL_NAME: Final = "ExternalName"


def service_host(ns: str, name: str, cluster_domain: str) -> str:
    """The full name of a Service."""
    return f"{name}.{ns}.svc.{cluster_domain}"


def service_named(cluster: str, host: str, cluster_domain: str) -> ObjectKey | None:
    """The Service object a full host name would belong to; None if it is not of that form."""
    name, _, ns = host.removesuffix(f".svc.{cluster_domain}").partition(".")
    if not host.endswith(f".svc.{cluster_domain}") or not ns or "." in ns:
        return None
    return ObjectKey(cluster, "", "Service", ns, name)


@query
def cluster_domain(db: Database) -> str:
    """The suffix of service names."""
    return settings(db).cluster_domain


@query
def core_service_hosts(db: Database, cluster: str, ns: str) -> tuple[str, ...]:
    """Full names of a namespace's Services, sorted by name."""
    domain = cluster_domain(db)
    keys = by_namespace(db, (cluster, "Service", ns))
    return tuple(service_host(ns, key.name, domain) for key in keys if key.group == "")


@query
def service_ranges(db: Database, cluster: str) -> tuple[str, ...]:
    """CIDRs of the API's ServiceCIDR objects, from which Services get their addresses; none before Kubernetes 1.33, and on a laptop."""
    keys = by_namespace(db, (cluster, "ServiceCIDR", ""))
    found = [objects(db, key) for key in keys if key.group == "networking.k8s.io"]
    return tuple(sorted({cidr for one in found if one is not None for cidr in one.spec.cidrs}))


@query
def core_service(db: Database, key: ServiceKey) -> Service | None:
    """The Kubernetes Service of that name; None if there is none. Aliases are not filled in here."""
    wanted = service_named(key.cluster, key.host, cluster_domain(db))
    found = objects(db, wanted) if wanted else None
    if wanted is None or found is None or wanted.namespace != key.namespace:
        return None
    return service_of(key, Origin(wanted), found)


def service_of(key: ServiceKey, origin: Origin, found: Object) -> Service:
    """A Service object read as a service."""
    spec: schema.Service = found.spec
    is_external_name = spec.type == EXTERNAL_NAME
    addresses = () if is_external_name else tuple(one for one in written_addresses(spec) if is_ip(one))
    held = Resolution.HEADLESS if is_headless(spec) else Resolution.STATIC
    return Service(
        key=key,
        ports=tuple(service_port(port) for port in spec.ports or ()),
        addresses=addresses,
        resolution=Resolution.DNS if is_external_name else held,
        is_external=is_external_name,
        selector=None if is_external_name else labels_of(spec.selector) or None,
        exported_to=exported_to(key.namespace, dict(found.annotations).get(EXPORT_TO, "").split(",")),
        aliases=(),
        subject_alt_names=(),
        origin=origin,
        external_name=spec.external_name.lower().rstrip(".") if is_external_name else "",
    )


def service_port(port: schema.ServicePort) -> ServicePort:
    """One port; without a targetPort the workload's port has the same number."""
    return ServicePort(
        number=port.port,
        name=port.name,
        protocol=port_protocol(port.port, port.name, port.protocol, port.app_protocol),
        target=port.target_port or port.port,
    )


def is_headless(spec: schema.Service) -> bool:
    """clusterIP: None."""
    return spec.cluster_ip == NO_ADDRESS


def exported_to(ns: str, words: Iterable[str]) -> tuple[str, ...]:
    """`exportTo` resolved: `.` is the namespace, `*` or nothing is everybody, `~` is nobody (an empty result). Sorted."""
    given = {word.strip() for word in words} - {""}
    if not given or "*" in given:
        return ("*",)
    return tuple(sorted({ns if word == "." else word for word in given - {"~"}}))
