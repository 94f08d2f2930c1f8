"""Routes of rules that are in no order of their own: every match of every route set, the most specific first (Gateway API).

Order: the hostname, then the path (exact, prefixes from the longest, regular expressions from the longest, everything), a
method, the number of headers, of parameters, the oldest route, its name, its place. Knows neither hosts nor listeners: the
neighbours (`routes`, `bound_hosts`) say which route sets a host has, and which of their hostnames it is.
"""

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import structs

from tulle.compile.sending import send_to
from tulle.model.intent import Forward, HttpMatch, HttpRule, MatchKind, Redirect, RouteSet, StringMatch, Target
from tulle.model.plan import Route

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_EVERY_PATH: Final = StringMatch(MatchKind.SEGMENTS, "/")
_PATH_RANKS: Final = {MatchKind.EXACT: 0, MatchKind.SEGMENTS: 1, MatchKind.PREFIX: 1, MatchKind.REGEX: 2}

Key = tuple[object, ...]


def ordered(
    found: Iterable[tuple[RouteSet, str]], place: Callable[[Target], str], port: int, scheme: str
) -> tuple[Route, ...]:
    """Routes of route sets, each with its hostname that was met (empty: not asked). What nothing can reach is left out."""
    ranked: list[tuple[Key, Route]] = []
    for routes, hostname in found:
        for number, rule in enumerate(routes.http):
            for at, match in enumerate(rule.matches):
                key = (*_host_rank(hostname), *_rank(match), routes.created, *routes.key, number, at)
                ranked.append((key, _route(rule, match, place, port, scheme)))
    made: list[Route] = []
    for _, route in sorted(ranked, key=lambda item: item[0]):  # keys differ: by object, rule and match
        made.append(route)
        if route.match == HttpMatch(path=_EVERY_PATH):
            break
    return tuple(made)


def _host_rank(hostname: str) -> tuple[bool, int]:
    return hostname.startswith("*"), -len(hostname)


def _rank(match: HttpMatch) -> Key:
    path = match.path
    if path is None or path == _EVERY_PATH:
        rank, length = 3, 0
    else:
        rank, length = _PATH_RANKS.get(path.kind, 3), len(path.value)
    return rank, -length, match.method is None, -len(match.headers), -len(match.query)


def _route(rule: HttpRule, match: HttpMatch, place: Callable[[Target], str], port: int, scheme: str) -> Route:
    action = rule.action
    if isinstance(action, Redirect):
        action = redirect_at(action, port, scheme)
    sent = send_to(action, place) if isinstance(action, Forward) else action
    return Route(rule.name or "default", match, sent, rule.rewrite, rule.policies, rule.origin)


def redirect_at(found: Redirect, port: int, scheme: str) -> Redirect:
    """A redirect with the port that its silence means: the new scheme's own, or that of the listener.

    A port that follows from the scheme is left out where the Host header has none to replace.
    """
    if found.port is not None:
        return found
    is_plain = port == _DEFAULT_PORTS[scheme]
    if found.scheme:
        needs = not found.authority and not is_plain
        return structs.replace(found, port=_DEFAULT_PORTS.get(found.scheme)) if needs else found
    return structs.replace(found, port=port) if found.authority and not is_plain else found
