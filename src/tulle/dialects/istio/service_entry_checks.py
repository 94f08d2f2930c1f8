"""What a ServiceEntry says that types cannot refuse. Rules are Istio's validation; codes TUL0320 to TUL0329."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from tulle.dialects.istio.schema_services import ServiceEntry
from tulle.dialects.istio.service_entry import is_known_protocol
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem


def service_entry_problems(spec: ServiceEntry, origin: Origin) -> tuple[Problem, ...]:
    """Every problem of one ServiceEntry; `origin` is that of the spec."""
    return (*_hosts(spec, origin), *_ports(spec, origin), *_addresses(spec, origin), *_endpoints(spec, origin))


def _hosts(spec: ServiceEntry, origin: Origin) -> Iterable[Problem]:
    if not spec.hosts:
        yield problem("TUL0320", origin.at("hosts"))
    for index, host in enumerate(spec.hosts):
        place = origin.at("hosts", index)
        if not _is_host(host):
            yield problem("TUL0321", place, host=host[:80])
        elif host.startswith("*") and spec.resolution.startswith("DNS") and not spec.endpoints:
            yield problem("TUL0322", place, host=host[:80])


def _ports(spec: ServiceEntry, origin: Origin) -> Iterable[Problem]:
    numbers: set[int] = set()
    names: set[str] = set()
    for index, port in enumerate(spec.ports):
        place = origin.at("ports", index)
        if port.number in numbers:
            yield problem("TUL0323", place.at("number"), what=f"number {port.number}")
        if port.name in names:
            yield problem("TUL0323", place.at("name"), what=f"name {port.name}")
        if port.protocol and not is_known_protocol(port.protocol):
            yield problem("TUL0324", place.at("protocol"), protocol=port.protocol[:40])
        numbers.add(port.number)
        names.add(port.name)


def _addresses(spec: ServiceEntry, origin: Origin) -> Iterable[Problem]:
    for index, address in enumerate(spec.addresses):
        try:
            ip_network(address, strict=False)
        except ValueError:
            yield problem("TUL0325", origin.at("addresses", index), address=address[:80])


def _endpoints(spec: ServiceEntry, origin: Origin) -> Iterable[Problem]:
    place = origin.at("endpoints")
    if spec.endpoints and spec.workload_selector is not None:
        yield problem("TUL0326", origin.at("workloadSelector"))
    if spec.endpoints and spec.resolution == "NONE":
        yield problem("TUL0327", place)
    if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
        yield problem("TUL0328", place)
    declared = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        if spec.resolution == "STATIC" and not _is_ip(endpoint.address):
            yield problem("TUL0329", place.at(index, "address"), address=endpoint.address[:80])
        elif spec.resolution.startswith("DNS") and not _is_ip(endpoint.address) and not _is_host(endpoint.address):
            yield problem("TUL0321", place.at(index, "address"), host=endpoint.address[:80])
        for name in endpoint.ports or {}:
            if name not in declared:
                yield problem("TUL0331", place.at(index, "ports", name), name=name)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    """A DNS name, or one with `*` as its whole first label. A bare `*` is no host here (Istio)."""
    labels = host.removeprefix("*.").rstrip(".").split(".")
    if not host or len(host) > 253 or _is_ip(host):  # an address is not a name
        return False
    return all(
        0 < len(one) <= 63 and one.replace("-", "").replace("_", "").isalnum() and one.isascii() for one in labels
    )
