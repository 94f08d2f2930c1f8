"""What is wrong with a VirtualService that types cannot say. Its HTTP rules are `check_http`'s. Source: Istio's webhook."""

from collections.abc import Iterator

from tulle.dialects.istio import schema_virtual_service as written
from tulle.dialects.istio.check_http import destination_problems, http_problems, weights
from tulle.dialects.istio.check_words import cidr_problems, gateway_problems, is_host, visibility_problems
from tulle.dialects.istio.names import MESH
from tulle.model.keys import covers
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem


def virtual_service_problems(spec: written.VirtualService, origin: Origin) -> tuple[Problem, ...]:
    """Every problem of one VirtualService; `origin` is that of its spec."""
    return (*_hosts(spec, origin), *_rules(spec, origin), *_shadowed(spec, origin))


def _hosts(spec: written.VirtualService, origin: Origin) -> Iterator[Problem]:
    if not spec.hosts:
        yield problem("TUL0401", origin)
    is_mesh = not spec.gateways or MESH in spec.gateways
    seen: set[str] = set()
    for index, host in enumerate(spec.hosts):
        place = origin.at("hosts", index)
        if not is_host(host):
            yield problem("TUL0402", place, host=host[:80])
        elif host == "*" and is_mesh:
            yield problem("TUL0403", place)
        if host.lower() in seen:
            yield problem("TUL0404", place, host=host)
        seen.add(host.lower())
    yield from gateway_problems(spec.gateways, origin.at("gateways"))
    yield from visibility_problems(spec.export_to, origin.at("exportTo"))


def _rules(spec: written.VirtualService, origin: Origin) -> Iterator[Problem]:
    if not spec.http and not spec.tls and not spec.tcp:
        yield problem("TUL0405", origin)
    for index, route in enumerate(spec.http):
        yield from http_problems(route, origin.at("http", index))
    for index, tls in enumerate(spec.tls):
        yield from _tls(tls, spec.hosts, origin.at("tls", index))
    for index, tcp in enumerate(spec.tcp):
        place = origin.at("tcp", index)
        for position, match in enumerate(tcp.match):
            yield from cidr_problems(match.destination_subnets, place.at("match", position, "destinationSubnets"))
            yield from gateway_problems(match.gateways, place.at("match", position, "gateways"))
        yield from _targets(tcp.route, place)


def _tls(route: written.TlsRoute, hosts: tuple[str, ...], origin: Origin) -> Iterator[Problem]:
    if not route.match:
        yield problem("TUL0433", origin)
    for index, match in enumerate(route.match):
        place = origin.at("match", index)
        if not match.sni_hosts:
            yield problem("TUL0433", place)
        for position, name in enumerate(match.sni_hosts):
            where = place.at("sniHosts", position)
            if not is_host(name):
                yield problem("TUL0402", where, host=name[:80])
            elif not any(covers(host.lower(), name.lower()) for host in hosts):
                yield problem("TUL0434", where, host=name[:80])
        yield from cidr_problems(match.destination_subnets, place.at("destinationSubnets"))
        yield from gateway_problems(match.gateways, place.at("gateways"))
    yield from _targets(route.route, origin)


def _targets(targets: tuple[written.TcpDestination, ...], origin: Origin) -> Iterator[Problem]:
    if not targets:
        yield problem("TUL0408", origin)
    yield from weights([one.weight for one in targets], origin.at("route"))
    for index, one in enumerate(targets):
        yield from destination_problems(one.destination, origin.at("route", index, "destination"))


def _shadowed(spec: written.VirtualService, origin: Origin) -> Iterator[Problem]:
    """Rules that no request can reach, because an earlier one takes everything, or the same."""
    taken: list[written.HttpMatch] = []
    catch_all: int | None = None
    for index, route in enumerate(spec.http):
        place = origin.at("http", index)
        if catch_all is not None:
            yield problem("TUL0430", place, rule=catch_all)
        for position, match in enumerate(route.match):
            if match in taken and catch_all is None:
                yield problem("TUL0431", place.at("match", position))
        taken += route.match
        if catch_all is None and (not route.match or written.HttpMatch() in route.match):
            catch_all = index
