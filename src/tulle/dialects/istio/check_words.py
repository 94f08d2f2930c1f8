"""Rules that several Istio kinds share: hosts, gateways, regular expressions, CIDRs, selectors.

Each function yields problems at the origin it is given; none knows a kind. Source: Istio's validation webhook.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

import re2

from tulle.dialects.istio.names import milliseconds
from tulle.dialects.istio.schema_wire import StringMatch, WorkloadSelector
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\Z")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBSET = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_HEADER = re.compile(r"[-!#$%&'*+.^_`|~A-Za-z0-9]+\Z")
_MAX_HOST = 253
_MAX_LABEL = 63
_MAX_REGEX = 1024
"""Characters; what Istio allows."""


def is_host(host: str) -> bool:
    """A DNS name, also with `*` for its first label or for all of it, or an IP address."""
    if host == "*":
        return True
    if is_cidr(host) and "/" not in host:
        return True
    labels = host.removeprefix("*.").removesuffix(".").split(".")
    return 0 < len(host) <= _MAX_HOST and all(len(one) <= _MAX_LABEL and _HOST_LABEL.match(one) for one in labels)


def is_cidr(text: str) -> bool:
    """An IP address or CIDR."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_label(text: str) -> bool:
    """A DNS label."""
    return len(text) <= _MAX_LABEL and bool(_DNS_LABEL.match(text))


def is_header(name: str) -> bool:
    """A header name (RFC 9110 token)."""
    return bool(_HEADER.match(name))


def regex_problems(expression: str, origin: Origin) -> Iterator[Problem]:
    """Envoy takes RE2."""
    if len(expression) > _MAX_REGEX:
        yield problem("TUL0413", origin, reason=f"longer than {_MAX_REGEX} characters")
        return
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(expression, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "unreadable"
        yield problem("TUL0413", origin, reason=reason.decode() if isinstance(reason, bytes) else reason)


def match_problems(match: StringMatch | None, origin: Origin) -> Iterator[Problem]:
    """One comparison."""
    if match is None:
        return
    given = [name for name in ("exact", "prefix", "regex") if getattr(match, name) is not None]
    if len(given) > 1:
        yield problem("TUL0414", origin, fields=" and ".join(given))
    if match.regex is not None:
        yield from regex_problems(match.regex, origin.at("regex"))


def named_match_problems(matches: Mapping[str, StringMatch], origin: Origin) -> Iterator[Problem]:
    """Comparisons of headers, by name."""
    for name, match in matches.items():
        if not is_header(name):
            yield problem("TUL0415", origin.at(name), name=name[:80])
        yield from match_problems(match, origin.at(name))


def cidr_problems(texts: Iterable[str], origin: Origin) -> Iterator[Problem]:
    """IP addresses and CIDRs."""
    for index, text in enumerate(texts):
        if not is_cidr(text):
            yield problem("TUL0435", origin.at(index), value=text[:80])


def positive_problems(duration: str | None, origin: Origin, *, may_be_zero: bool = False) -> Iterator[Problem]:
    """A duration of at least 1 ms."""
    if duration is not None:
        exact = milliseconds(duration)
        if not (exact >= 1 or (may_be_zero and exact == 0)):
            yield problem("TUL0419", origin, value=duration)


def visibility_problems(export_to: Iterable[str], origin: Origin) -> Iterator[Problem]:
    """`exportTo`."""
    for index, place in enumerate(export_to):
        if place not in (".", "*", "~") and not is_label(place):
            yield problem("TUL0407", origin.at(index), value=place[:80])


def gateway_problems(names: Iterable[str], origin: Origin) -> Iterator[Problem]:
    """Names of gateways."""
    for index, name in enumerate(names):
        place, slash, bare = name.rpartition("/")
        is_fit = all(is_label(part) for part in bare.split(".")) and (not slash or place == "." or is_label(place))
        if not is_fit:
            yield problem("TUL0406", origin.at(index), value=name[:80])


def selector_problems(selector: WorkloadSelector | None, origin: Origin) -> Iterator[Problem]:
    """A selector of workloads by label."""
    for name, value in (selector.match_labels if selector else {}).items():
        if "*" in name or "*" in value or not name:
            yield problem("TUL0603", origin.at("matchLabels", name), name=name, value=value)


def is_subset_name(name: str) -> bool:
    """A subset's name: a label value."""
    return len(name) <= _MAX_LABEL and bool(_SUBSET.match(name))
