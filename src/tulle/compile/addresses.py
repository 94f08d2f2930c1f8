"""IP addresses as services and rules name them: single ones, and ranges, each in one spelling. Resolves nothing."""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_ANYWHERE = frozenset(("0.0.0.0", "::"))  # noqa: S104 - what users may write as an address


def is_ip(text: str) -> bool:
    """An IPv4 or IPv6 address without a prefix length."""
    return _IPV4.fullmatch(text) is not None or _is_ip(text)  # there are too many endpoints to remember them all


@lru_cache(maxsize=4_096)
def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def singles(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses of one host each, once, in Envoy's spelling."""
    found = (_spelled(one) for one in addresses if is_ip(one))
    return tuple(dict.fromkeys(one for one in found if one not in _ANYWHERE))


@lru_cache(maxsize=4_096)
def _spelled(address: str) -> str:
    return str(ip_address(address))


def ranges(addresses: Iterable[str]) -> tuple[str, ...]:
    """The others as CIDRs, once; everything is `0.0.0.0/0`."""
    found = (network(f"{one}/0" if one in _ANYWHERE else one) for one in addresses if "/" in one or one in _ANYWHERE)
    return tuple(dict.fromkeys(found))


def network(text: str) -> str:
    """One spelling of a CIDR or address: host bits cleared, length written. Raises ValueError for anything else."""
    return str(ip_network(text, strict=False))
