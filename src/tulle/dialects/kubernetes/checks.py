"""What a Service or ServiceCIDR says that types cannot refuse: ports twice, addresses that are none, names the mesh does not know."""

from collections.abc import Iterable
from ipaddress import ip_address

from tulle.dialects.istio.check_words import cidr_problems
from tulle.dialects.kubernetes import schema
from tulle.dialects.kubernetes.protocols import is_known_app_protocol
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

NO_ADDRESS = "None"
"""clusterIP of a headless Service."""


def service_problems(spec: schema.Service, origin: Origin) -> tuple[Problem, ...]:
    """TUL0301 to TUL0305; `origin` is that of the spec."""
    return tuple(_problems(spec, origin))


def _problems(spec: schema.Service, origin: Origin) -> Iterable[Problem]:
    if spec.type == "ExternalName" and not spec.external_name:
        yield problem("TUL0301", origin.at("externalName"))
    for address in written_addresses(spec):
        if not is_ip(address):
            yield problem("TUL0302", origin.at("clusterIP"), address=address)
    seen: set[tuple[int, str]] = set()
    for index, port in enumerate(spec.ports or ()):
        place = origin.at("ports", index)
        if (port.port, port.protocol) in seen:
            yield problem("TUL0303", place.at("port"), port=port.port, protocol=port.protocol)
        seen.add((port.port, port.protocol))
        if port.app_protocol is not None and not is_known_app_protocol(port.app_protocol):
            yield problem("TUL0304", place.at("appProtocol"), protocol=port.app_protocol)
        if port.protocol == "SCTP":
            yield problem("TUL0305", place.at("protocol"), port=port.port)


def range_problems(spec: schema.ServiceCIDR, origin: Origin) -> tuple[Problem, ...]:
    """TUL0435; `origin` is that of the spec."""
    return tuple(cidr_problems(spec.cidrs, origin.at("cidrs")))


def written_addresses(spec: schema.Service) -> tuple[str, ...]:
    """clusterIPs, or the one clusterIP; none of a headless Service."""
    written = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    return tuple(address for address in written if address and address != NO_ADDRESS)


def is_ip(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
