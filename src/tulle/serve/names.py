"""What the mesh's DNS answers: host names to addresses, from the services that are declared. Pure.

The answering is the supervisor's; `app` writes the table where it reads it. Sources: Kubernetes' DNS specification (cluster IPs,
headless Services, ExternalName), Istio's addresses for ServiceEntry hosts.
"""

import ipaddress
from collections.abc import Mapping

from msgspec import Struct

from tulle.dialects.kubernetes import alias_target, namespaces, services_in, workload, workloads_selected
from tulle.dialects.kubernetes.registry import declared
from tulle.dialects.kubernetes.services import core_service_hosts
from tulle.engine import Database, query
from tulle.model.intent import Resolution, Service
from tulle.model.keys import ServiceKey


class Named(Struct, frozen=True, order=True):
    """What one name stands for: addresses, or another name."""

    a: tuple[str, ...] = ()
    cname: str = ""


@query
def names_held(db: Database, cluster: str) -> Mapping[str, Named]:
    """Every full name the mesh answers for. Names without an address are listed too: they exist and have none."""
    found: dict[str, Named] = {}
    for place in namespaces(db, cluster):
        for name, named in names_in(db, cluster, place):
            found.setdefault(name, named)
    return found


@query
def names_in(db: Database, cluster: str, ns: str) -> tuple[tuple[str, Named], ...]:
    """Names that one namespace's services give, sorted."""
    found: dict[str, Named] = {}
    for item in services_in(db, cluster, ns):
        if item.resolution is Resolution.HEADLESS:
            found |= _headless(db, item)
        elif not item.key.host.startswith("*") and (item.is_kubernetes or _addresses(item)) and not item.external_name:
            found[item.key.host] = Named(_addresses(item))
        if item.external_name:
            found[item.key.host] = Named((), item.external_name)
    for host in core_service_hosts(db, cluster, ns):
        key = ServiceKey(cluster, ns, host)
        plain = declared(db, key)
        if host not in found and plain is not None and plain.external_name:
            found[host] = Named((), alias_target(db, key) or plain.external_name)
    return tuple(sorted(found.items()))


@query
def _ready_pods(
    db: Database, cluster: str, ns: str, selector: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    found = (workload(db, key) for key in workloads_selected(db, cluster, ns, selector))
    return tuple(sorted((one.key.name, one.address) for one in found if one and one.is_ready and one.address))


def _headless(db: Database, item: Service) -> dict[str, Named]:
    """A headless Service is its ready pods, together and each by its own name (StatefulSets address them so)."""
    if item.selector is None:
        return {item.key.host: Named()}
    pods = _ready_pods(db, item.key.cluster, item.key.namespace, item.selector)
    return {
        item.key.host: Named(tuple(address for _, address in pods)),
        **{f"{name}.{item.key.host}": Named((address,)) for name, address in pods},
    }


def _addresses(item: Service) -> tuple[str, ...]:
    return tuple(one for one in item.addresses if _is_ipv4(one))


def _is_ipv4(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def table(names: Mapping[str, Named]) -> dict[str, dict[str, dict[str, object]]]:
    """The table as the supervisor reads it."""
    return {"names": {name: {"a": list(named.a), "cname": named.cname} for name, named in names.items()}}
