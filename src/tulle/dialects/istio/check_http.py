"""What is wrong with one HTTP rule of a VirtualService that types cannot say. Source: Istio's validation webhook."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final

from tulle.dialects.istio import schema_virtual_service as written
from tulle.dialects.istio.check_words import (
    gateway_problems,
    is_header,
    is_host,
    is_subset_name,
    match_problems,
    named_match_problems,
    positive_problems,
    regex_problems,
)
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

_MAX_BODY: Final = 1_048_576
_REDIRECT_CODES: Final = (301, 302, 303, 307, 308)
_METHODS: Final = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"])
_RETRY_WORDS: Final = frozenset(
    [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ]
)
_STATUS: Final = re.compile(r"[1-5][0-9][0-9]\Z")


def http_problems(route: written.HttpRoute, origin: Origin) -> Iterator[Problem]:
    """One rule; `origin` is the rule's."""
    yield from _action(route, origin)
    for index, match in enumerate(route.match):
        yield from _match(match, origin.at("match", index))
    yield from weights([one.weight for one in route.route], origin.at("route"))
    for index, one in enumerate(route.route):
        place = origin.at("route", index)
        yield from destination_problems(one.destination, place.at("destination"))
        yield from _headers(one.headers, place.at("headers"))
    yield from _headers(route.headers, origin.at("headers"))
    yield from positive_problems(route.timeout, origin.at("timeout"), may_be_zero=True)
    yield from _retries(route.retries, origin.at("retries"))
    yield from _mirrors(route, origin)
    yield from _cors(route.cors_policy, origin.at("corsPolicy"))
    yield from _rewrite(route.rewrite, origin.at("rewrite"))
    yield from _redirect(route.redirect, origin.at("redirect"))
    yield from _response(route.direct_response, origin.at("directResponse"))


def _action(route: written.HttpRoute, origin: Origin) -> Iterator[Problem]:
    given = [
        name
        for name, value in (
            ("route", route.route),
            ("redirect", route.redirect),
            ("directResponse", route.direct_response),
            ("delegate", route.delegate),
        )
        if value
    ]
    if given == ["delegate"]:
        yield problem("TUL0432", origin)
    if not given and route.redirect is None and route.delegate is None:
        yield problem("TUL0408", origin)
    if len(given) > 1:
        yield problem("TUL0409", origin, fields=" and ".join(given))
    if route.rewrite is not None and (route.redirect is not None or route.direct_response is not None):
        yield problem("TUL0410", origin.at("rewrite"))


def weights(values: list[int], origin: Origin) -> Iterator[Problem]:
    """Several targets must share some weight; one needs none."""
    if len(values) > 1 and sum(values) == 0:
        yield problem("TUL0412", origin, count=len(values))
    if sum(values) > 4294967295:
        yield problem("TUL0411", origin)


def destination_problems(destination: written.Destination, origin: Origin) -> Iterator[Problem]:
    """A place to go to."""
    if not destination.host or "*" in destination.host or not is_host(destination.host):
        yield problem("TUL0416", origin.at("host"), host=destination.host[:80])
    if destination.subset and not is_subset_name(destination.subset):
        yield problem("TUL0417", origin.at("subset"), name=destination.subset[:80])


def _match(match: written.HttpMatch, origin: Origin) -> Iterator[Problem]:
    for name, one in (
        ("uri", match.uri),
        ("scheme", match.scheme),
        ("method", match.method),
        ("authority", match.authority),
    ):
        yield from match_problems(one, origin.at(name))
    if match.uri is not None and match.uri.prefix == "":
        yield problem("TUL0428", origin.at("uri", "prefix"))
    yield from named_match_problems(match.headers, origin.at("headers"))
    yield from named_match_problems(match.without_headers, origin.at("withoutHeaders"))
    for name, one in match.query_params.items():
        yield from match_problems(one, origin.at("queryParams", name))
    yield from gateway_problems(match.gateways, origin.at("gateways"))


def _headers(headers: written.Headers | None, origin: Origin) -> Iterator[Problem]:
    if headers is None:
        return
    for way, operations in (("request", headers.request), ("response", headers.response)):
        for field, names in (("set", operations.set), ("add", operations.add)):
            yield from _header_names(names, origin.at(way, field), is_request=way == "request")
        for index, name in enumerate(operations.remove):
            if not is_header(name) or name.lower() == "host":
                yield problem("TUL0415", origin.at(way, "remove", index), name=name[:80])


def _header_names(names: Iterable[str], origin: Origin, *, is_request: bool) -> Iterator[Problem]:
    for name in names:
        is_fit = is_header(name) or (is_request and name == ":authority")
        if not is_fit:
            yield problem("TUL0415", origin.at(name), name=name[:80])


def _retries(retries: written.HttpRetry | None, origin: Origin) -> Iterator[Problem]:
    if retries is None:
        return
    if retries.attempts == 0 and (retries.per_try_timeout is not None or retries.retry_on):
        yield problem("TUL0418", origin)
    yield from positive_problems(retries.per_try_timeout, origin.at("perTryTimeout"), may_be_zero=True)
    yield from positive_problems(retries.backoff, origin.at("backoff"))
    for word in retries.retry_on.split(",") if retries.retry_on else ():
        if word.strip() not in _RETRY_WORDS and not _STATUS.match(word.strip()):
            yield problem("TUL0420", origin.at("retryOn"), word=word.strip()[:40])


def _mirrors(route: written.HttpRoute, origin: Origin) -> Iterator[Problem]:
    if route.mirror is not None and route.mirrors:
        yield problem("TUL0421", origin.at("mirror"))
    if route.mirror is not None:
        yield from destination_problems(route.mirror, origin.at("mirror"))
    elif route.mirror_percent is not None or route.mirror_percentage is not None:
        field = "mirrorPercent" if route.mirror_percent is not None else "mirrorPercentage"
        yield problem("TUL0429", origin.at(field), field=field)
    if route.mirror_percent is not None:
        place = origin.at("mirrorPercent")
        yield problem(
            "TUL0205", place, field="mirrorPercent", meaning="that percentage", instead="mirrorPercentage.value"
        )
    for index, mirror in enumerate(route.mirrors):
        yield from destination_problems(mirror.destination, origin.at("mirrors", index, "destination"))


def _cors(cors: written.CorsPolicy | None, origin: Origin) -> Iterator[Problem]:
    if cors is None:
        return
    if cors.allow_origin:
        place = origin.at("allowOrigin")
        yield problem("TUL0205", place, field="allowOrigin", meaning="exact origins", instead="allowOrigins with exact")
    for index, match in enumerate(cors.allow_origins):
        yield from match_problems(match, origin.at("allowOrigins", index))
    for index, method in enumerate(cors.allow_methods):
        if method not in _METHODS:
            yield problem("TUL0422", origin.at("allowMethods", index), method=method[:40])
    for field, names in (("allowHeaders", cors.allow_headers), ("exposeHeaders", cors.expose_headers)):
        for index, name in enumerate(names):
            if not is_header(name):
                yield problem("TUL0415", origin.at(field, index), name=name[:80])
    yield from positive_problems(cors.max_age, origin.at("maxAge"), may_be_zero=True)


def _rewrite(rewrite: written.HttpRewrite | None, origin: Origin) -> Iterator[Problem]:
    if rewrite is None:
        return
    regex = rewrite.uri_regex_rewrite
    if not rewrite.uri and not rewrite.authority and regex is None:
        yield problem("TUL0424", origin)
    if rewrite.uri and regex is not None:
        yield problem("TUL0423", origin.at("uriRegexRewrite"))
    if regex is not None:
        if not regex.match:
            yield problem("TUL0115", origin.at("uriRegexRewrite"), field="match")
        yield from regex_problems(regex.match, origin.at("uriRegexRewrite", "match"))
        yield from _substitution(regex.match, regex.rewrite, origin.at("uriRegexRewrite", "rewrite"))


def _substitution(expression: str, to: str, origin: Origin) -> Iterator[Problem]:
    groups = len(re.findall(r"(?<!\\)\((?!\?(?!P<))", expression))
    for number in re.findall(r"\\(\d)", to):
        if int(number) > groups:
            yield problem("TUL0426", origin, number=number, groups=groups)


def _redirect(redirect: written.HttpRedirect | None, origin: Origin) -> Iterator[Problem]:
    if redirect is None:
        return
    if redirect == written.HttpRedirect():
        yield problem("TUL0424", origin)
    if redirect.port is not None and redirect.derive_port is not None:
        yield problem("TUL0427", origin.at("derivePort"))
    if redirect.redirect_code and redirect.redirect_code not in _REDIRECT_CODES:
        codes = ", ".join(map(str, _REDIRECT_CODES))
        yield problem("TUL0117", origin.at("redirectCode"), value=redirect.redirect_code, range=codes)
    if redirect.scheme and redirect.scheme not in ("http", "https"):
        yield problem("TUL0116", origin.at("scheme"), value=redirect.scheme[:40], choices="http, https", hint="")


def _response(response: written.HttpDirectResponse | None, origin: Origin) -> Iterator[Problem]:
    body = response.body if response else None
    if body is None:
        return
    if body.string is not None and body.bytes is not None:
        yield problem("TUL0425", origin.at("body"))
    if body.bytes is not None and not _is_base64(body.bytes):
        yield problem("TUL0425", origin.at("body", "bytes"))
    if len((body.string or body.bytes or "").encode()) > _MAX_BODY:
        yield problem("TUL0117", origin.at("body"), value="the body", range=f"at most {_MAX_BODY} bytes")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
